package gc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"dcfs/cmd/internal/control"
	"dcfs/fs/durable"
	"dcfs/fs/materialise"
)

// served tells whether a live dcfs process has its mount at path.
func (c *collector) served(ctx context.Context, path string) (bool, error) {
	live, _, errs := control.Look(ctx, c.RunDir, askTimeout)
	if len(errs) > 0 {
		return false, fmt.Errorf("gc: who serves %s cannot be known, so nothing is removed: %w", path, errs[0])
	}
	for _, s := range live {
		if s.Mountpoint == "" {
			continue
		}
		if at, err := durable.Resolve(s.Mountpoint); err != nil || at == path {
			return true, nil
		}
	}
	return false, nil
}

// orphans removes receipts of releases below the directory that are not there.
func (c *collector) orphans(context.Context) error {
	all, err := materialise.Recorded(c.State)
	if err != nil {
		return fmt.Errorf("gc: the receipts: %w", err)
	}
	for _, r := range all {
		// A young one may be of a release that appears in the next instant.
		if !within(r.Dest, c.dir) || time.Since(r.Completed) < c.StaleAfter || !materialise.Gone(r) {
			continue
		}
		c.left("receipt", r.Dest, Remove, "the directory that it names is not there",
			func() error { return materialise.RemoveReceipt(c.State, r.Dest) })
	}
	return nil
}

// metainfo removes what is kept of releases that are not on this host.
func (c *collector) metainfo(context.Context) error {
	needed, err := c.neededMetainfo()
	if err != nil {
		return fmt.Errorf("gc: %w", err)
	}
	dir := filepath.Join(c.State, "metainfo")
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("gc: %w", err)
	}
	for _, e := range entries {
		fi, err := e.Info()
		if err != nil || !fi.Mode().IsRegular() || time.Since(fi.ModTime()) < c.StaleAfter {
			continue
		}
		infohash, isTorrent := strings.CutSuffix(e.Name(), ".torrent")
		if !isTorrent || needed[infohash] {
			continue
		}
		path := filepath.Join(dir, e.Name())
		c.left("metainfo", path, Remove, "no release on this host needs it",
			func() error { return durable.Disk{}.RemoveAll(path) })
	}
	return nil
}

// unwritten removes the files that a process which was killed was writing.
func (c *collector) unwritten(context.Context) error {
	for _, name := range []string{"receipts", "links", "metainfo"} {
		dir := filepath.Join(c.State, name)
		entries, err := os.ReadDir(dir)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("gc: %w", err)
		}
		for _, e := range entries {
			fi, err := e.Info()
			if err != nil || !fi.Mode().IsRegular() || !durable.IsTemporary(e.Name()) || time.Since(fi.ModTime()) < c.StaleAfter {
				continue
			}
			path := filepath.Join(dir, e.Name())
			c.left("file", path, Remove, "its process was killed while it wrote it",
				func() error { return ignoreGone(os.Remove(path)) })
		}
	}
	return nil
}

// neededMetainfo names the releases that stand here, wherever, that live
// processes have, or that somebody may resume.
func (c *collector) neededMetainfo() (map[string]bool, error) {
	needed := map[string]bool{}
	all, err := materialise.Recorded(c.State)
	if err != nil {
		return nil, err
	}
	for _, r := range all {
		needed[r.InfoHash] = true
	}
	for _, s := range c.live {
		needed[s.Infohash] = true
	}
	for _, dir := range c.places() {
		stages, err := materialise.Leftovers(dir)
		if err != nil {
			return nil, err
		}
		for _, s := range stages {
			needed[s.InfoHash] = true
		}
	}
	return needed, nil
}
