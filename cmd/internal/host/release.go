package host

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"dcfs/cmd/internal/catalog"
	"dcfs/fs/materialise"
	"dcfs/fs/release"
	"dcfs/swarm/gate"
	"dcfs/swarm/metainfo"
)

// originPatience is how long an origin may take to answer when this host may
// know the release without it.
const originPatience = 10 * time.Second

var patience = originPatience // shorter in tests

// Question asks for a release by the word RELEASE.
type Question struct {
	Word     string
	Origins  []string       // base URLs
	State    string         // where this host keeps what it has fetched
	Dir      string         // a directory that is said to be the release
	Trusted  string         // directory of public keys
	Unsigned bool           // take a release without a signature
	Identity *gate.Identity // that origins ask for; nil for none
}

// Release finds the release that a word means and opens it: at the origin when
// one answers, else in what this host has kept of it. A magnet is looked up on
// this host only. Errors are those of catalog.Resolve and release.Open.
func Release(ctx context.Context, q Question) (*release.Release, error) {
	trust, err := release.LoadTrusted(q.Trusted)
	if err != nil {
		return nil, err
	}
	opt := release.OpenOptions{Trust: trust, AllowUnsigned: q.Unsigned}
	if strings.HasPrefix(strings.ToLower(q.Word), "magnet:") {
		return openMagnet(q, opt)
	}
	if version, err := catalog.ParseVersion(q.Word); err == nil && len(q.Origins) == 0 {
		return openKept(q, version, opt)
	}
	asking, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	client := &catalog.Client{Origins: q.Origins, Identity: q.Identity}
	defer client.Close()
	src, err := catalog.Resolve(asking, q.Word, catalog.Options{Client: client})
	if errors.Is(err, catalog.ErrUnreachable) && ctx.Err() == nil {
		if version, e := catalog.ParseVersion(q.Word); e == nil {
			if r, e := openKept(q, version, opt); e == nil {
				return r, nil
			}
		}
	}
	if err != nil {
		return nil, err
	}
	opt.Want = string(src.Version)
	return release.Open(src.Metainfo, opt)
}

// openKept opens the release that this host says it put into the directory.
func openKept(q Question, version catalog.Version, opt release.OpenOptions) (*release.Release, error) {
	opt.Want = string(version)
	r, err := materialise.ReadReceipt(q.State, q.Dir)
	if err == nil && r.Version != opt.Want {
		err = fmt.Errorf("this host put %s into %s", r.Version, q.Dir)
	}
	if err != nil {
		return nil, fmt.Errorf("%w %s: no origin is named and %w; name one with --origin, or give its .torrent file",
			catalog.ErrUnknownRelease, version, err)
	}
	return openFile(q.State, r.InfoHash, opt)
}

func openMagnet(q Question, opt release.OpenOptions) (*release.Release, error) {
	m, err := metainfo.ParseMagnet(q.Word)
	if err != nil {
		return nil, err
	}
	opt.Want = m.Name
	return openFile(q.State, hex.EncodeToString(m.InfoHash[:]), opt)
}

// openFile opens the metainfo that this host keeps of an infohash in hex. What
// it keeps is held against the keys that are trusted now.
func openFile(state, infohash string, opt release.OpenOptions) (*release.Release, error) {
	raw, err := os.ReadFile(filepath.Join(state, "metainfo", infohash+".torrent"))
	if err != nil {
		return nil, fmt.Errorf("%w: this host has kept nothing of it: %w; name it as VERSION with --origin, or give its .torrent file",
			catalog.ErrUnknownRelease, err)
	}
	return release.Open(raw, opt)
}
