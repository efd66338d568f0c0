package agent

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"dcfs/fs"
	"dcfs/fs/release"
)

// Heritage is what a life leaves to a successor, should its process die: the
// mount, and what cannot be found out again while readers wait. Its JSON, but
// for the mount's files, goes from one version of the program to the next.
type Heritage struct {
	Mount     fs.Held   `json:"-"`
	Written   *os.File  `json:"-"`     // see written; nil when the copy stood at the start
	Asked     string    `json:"asked"` // RELEASE and MOUNTPOINT, as the command line has them
	State     fs.State  `json:"mount"`
	Version   string    `json:"version"`  // of the release
	InfoHash  string    `json:"infohash"` // 40 hex digits
	Trackers  []string  `json:"trackers"`
	Activated bool      `json:"activated"` // the link was swapped
	Opened    time.Time `json:"opened"`    // when the signature was checked: an expiry does not end a mount
}

// Fits says whether a life of c would go on with this mount, and the mount is
// there.
func (h *Heritage) Fits(c Config) bool { return h.Asked == c.asked() && !h.Mount.Ended() }

func (c *Config) asked() string {
	return c.Release + " " + c.Mountpoint
}

// bequeath leaves everything as it stands to a successor.
func (l *life) bequeath() error {
	if l.cfg.Hold == nil || l.server == nil {
		return nil
	}
	held, err := l.server.Hold()
	if errors.Is(err, fs.ErrNoResume) {
		l.log.Debug("the mount ends with this process", "cause", err)
		return nil
	}
	if err != nil {
		return err
	}
	defer held.Close()
	var wrote *os.File
	if l.written != nil {
		wrote = l.written.file
	}
	return l.cfg.Hold(Heritage{
		Mount: held, Written: wrote, Asked: l.cfg.asked(), State: held.State, Version: l.rel.Name, InfoHash: hex.EncodeToString(l.rel.InfoHash[:]),
		Trackers: l.trackers, Activated: l.activated, Opened: l.opened(),
	})
}

// inherit stands for acquire in a successor: the release is the one that is
// mounted, and its metainfo is on this host. It is proved again all the same.
func (l *life) inherit() error {
	h := l.cfg.Resume
	raw, err := os.ReadFile(filepath.Join(l.cfg.State, "metainfo", h.InfoHash+".torrent"))
	if err != nil {
		return fmt.Errorf("the release that is mounted: %w", err)
	}
	opt := release.OpenOptions{Want: h.Version, AllowUnsigned: l.cfg.InsecureUnsigned, Now: l.opened()}
	if opt.Trust, err = release.LoadTrusted(l.cfg.TrustedDir); err != nil {
		return err
	}
	rel, err := release.Open(l.offHeap(raw), opt)
	if err != nil {
		return err
	}
	if l.cfg.Owner != nil {
		rel = rel.GivenTo(*l.cfg.Owner)
	}
	l.origins = l.cfg.Origins
	l.adopt(rel, h.Trackers)
	l.activated = h.Activated
	return nil
}

// opened is when the first of these lives began.
func (l *life) opened() time.Time {
	if l.cfg.Resume != nil {
		return l.cfg.Resume.Opened
	}
	return l.started
}

// serve shows the release at the mountpoint, or goes on where a process that
// died has shown it.
func (l *life) serve(ctx context.Context, cfg fs.Config) (*fs.Server, error) {
	if l.cfg.Resume == nil {
		return fs.Mount(ctx, cfg)
	}
	l.log.Warn("going on with the mount of a process that died", "mountpoint", l.cfg.Mountpoint)
	held := l.cfg.Resume.Mount
	defer held.Close()
	held.State = l.cfg.Resume.State
	return fs.Resume(cfg, held)
}
