package catalog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Options of Resolve.
type Options struct {
	Client *Client      // knows the origins; may be nil for files and magnets
	Log    *slog.Logger // told when an origin is tried again; may be nil
}

// Source is where a release begins. Either Metainfo or Magnet is set.
type Source struct {
	Version  Version  // empty when the word does not tell it
	Metainfo []byte   // not verified
	Magnet   string   // a magnet: URI, not parsed
	Trackers []string // announce URLs of the origins, beside those in the metainfo
	Origins  []string // base URLs of those that were asked, or would have been
}

const (
	maxMagnet  = 64 << 10
	firstPause = 250 * time.Millisecond
	lastPause  = 5 * time.Second
)

// Resolve turns the word RELEASE into a Source:
//
//   - magnet:?… is passed on;
//   - http(s)://…/v1/releases/VERSION, with or without .torrent, is fetched
//     there; the trackers are that origin's and then the Client's;
//   - a valid VERSION is looked up at the Client's origins, also such that DNS
//     names, even when a file
//     of that name exists: write ./NAME for the file. No VERSION ends in
//     .torrent;
//   - a word that ends in .torrent, or holds a slash and exists, is a path to
//     a file.
//
// Anything else wraps ErrUsage. While no origin answers it tries again, with
// pauses, until ctx ends: give ctx a deadline. Whatever an origin does answer,
// such as that it has no such release, ends it at once.
func Resolve(ctx context.Context, word string, o Options) (Source, error) {
	if o.Client == nil {
		o.Client = &Client{}
		defer o.Client.Close()
	}
	lower := strings.ToLower(word)
	switch {
	case strings.HasPrefix(lower, "magnet:"):
		return magnet(word)
	case strings.HasPrefix(lower, "http://"), strings.HasPrefix(lower, "https://"):
		return o.fromURL(ctx, word)
	}
	version, err := ParseVersion(word)
	if err == nil {
		return o.fromOrigins(ctx, o.Client.Origins, version)
	}
	if strings.HasSuffix(word, torrentExt) || strings.Contains(word, "/") && exists(word) {
		return fromFile(word)
	}
	return Source{}, fmt.Errorf("%w; and no file has that name: RELEASE is a VERSION, an origin's URL, "+
		"a path to a .torrent file or a magnet: URI", err)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func magnet(word string) (Source, error) {
	if len(word) > maxMagnet {
		return Source{}, fmt.Errorf("%w: the magnet: URI is longer than %d bytes", ErrUsage, maxMagnet)
	}
	return Source{Magnet: word}, nil
}

func (o Options) fromURL(ctx context.Context, word string) (Source, error) {
	origin, version, err := splitURL(word)
	if err != nil {
		return Source{}, err
	}
	src, err := o.fromOrigins(ctx, []string{origin}, version)
	if err != nil {
		return Source{}, err
	}
	named, err := ParseOrigins(o.Client.Origins...)
	others, _ := Expand(ctx, named) // what the DNS does not know is left out
	for _, other := range others {
		if !slices.Contains(src.Origins, other) {
			src.Origins = append(src.Origins, other)
		}
	}
	src.Trackers = Trackers(src.Origins)
	return src, err
}

// splitURL cuts ORIGIN/v1/releases/VERSION[.torrent].
func splitURL(word string) (origin string, version Version, err error) {
	at := strings.Index(word, releasesPath+"/")
	if at < 0 {
		return "", "", fmt.Errorf("%w: %q: a URL of a release is ORIGIN%s/VERSION", ErrUsage, clip(word), releasesPath)
	}
	if origin, err = parseOrigin(word[:at]); err != nil {
		return "", "", err
	}
	name, err := url.PathUnescape(word[at+len(releasesPath)+1:])
	if err != nil {
		return "", "", badVersion(word, "it is not escaped as a URL is")
	}
	version, err = ParseVersion(strings.TrimSuffix(name, torrentExt))
	return origin, version, err
}

func (o Options) fromOrigins(ctx context.Context, origins []string, version Version) (Source, error) {
	named, err := ParseOrigins(origins...)
	if err != nil {
		return Source{}, err
	}
	src := Source{Version: version}
	err = o.retry(ctx, func() (err error) {
		if src.Origins, err = Expand(ctx, named); err != nil { // the DNS may say something else by now
			return err
		}
		src.Trackers = Trackers(src.Origins)
		src.Metainfo, err = o.Client.metainfo(ctx, src.Origins, version)
		return err
	})
	if err != nil {
		return Source{}, err
	}
	return src, nil
}

// retry calls try until it gives anything but ErrUnreachable or ctx ends. It
// returns the last error that was not merely the end of ctx.
func (o Options) retry(ctx context.Context, try func() error) error {
	var last error
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		err := try()
		if !errors.Is(err, ErrUnreachable) {
			return err
		}
		if last == nil || ctx.Err() == nil {
			last = err
		}
		// Half of the pause is random: a fleet started at once must not
		// come back at once.
		wait := pause/2 + rand.N(pause/2)
		if o.Log != nil && ctx.Err() == nil {
			o.Log.Warn("no origin answers yet, trying again", "in", wait.Round(time.Millisecond), "error", err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; gave up: %w", last, context.Cause(ctx))
		case <-time.After(wait):
		}
	}
}

// fromFile reads a .torrent file. O_NONBLOCK keeps a FIFO from blocking the
// open; whatever is not a regular file is then refused.
func fromFile(path string) (Source, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		kind := ErrUsage
		switch {
		case errors.Is(err, fs.ErrNotExist):
			kind = ErrUnknownRelease
		case errors.Is(err, fs.ErrPermission):
			kind = ErrUnauthorized
		}
		return Source{}, fmt.Errorf("%w: torrent file: %w (RELEASE is a VERSION, a URL or the path of a file that you can read)", kind, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		return Source{}, fmt.Errorf("%w: %q is not a regular file", ErrUsage, clip(path))
	}
	if err != nil {
		return Source{}, fmt.Errorf("%w: torrent file: %w", ErrBadAnswer, err)
	}
	body, err := io.ReadAll(io.LimitReader(f, MaxMetainfo+1))
	if err != nil {
		return Source{}, fmt.Errorf("%w: torrent file: %w", ErrBadAnswer, err)
	}
	if len(body) > MaxMetainfo || !looksBencoded(body) {
		return Source{}, fmt.Errorf("%w: %q is no torrent, or one of more than %d bytes", ErrBadAnswer, clip(path), MaxMetainfo)
	}
	return Source{Metainfo: body}, nil
}
