package main

import (
	"context"
	"time"

	"github.com/urfave/cli/v2"

	"dcfs/cmd/internal/agent"
	"dcfs/cmd/internal/control"
)

const (
	joinEvery = 100 * time.Millisecond
	joinTime  = time.Second // for a process to answer
)

// joinLive follows a process that mounts this very release at this mountpoint, for
// this copy, already: that of a caller who was cut off from it. It reports whether
// there was one that came to the stage; when it ends before, or there is none,
// another has to be started.
func joinLive(c *cli.Context, cfg agent.Config, stage control.State, show *progress) (last control.Status, joined bool) {
	if cfg.Mountpoint == "" || cfg.Dest == "" {
		return last, false
	}
	ticker := time.NewTicker(joinEvery)
	defer ticker.Stop()
	for {
		now, ok := liveMount(c.Context, cfg)
		if !ok {
			return last, false
		}
		if now.State != last.State {
			cfg.Log.Info("a process does this already", "state", now.State, "release", now.Version, "pid", now.PID)
		}
		if last = now; last.State.Reached(stage) {
			return last, true
		}
		show.update(last)
		select {
		case <-ticker.C:
		case <-c.Context.Done():
			return last, false
		}
	}
}

// liveMount is the process that works for the same mountpoint, copy and version.
func liveMount(ctx context.Context, cfg agent.Config) (control.Status, bool) {
	all, _ := control.Collect(ctx, cfg.RunDir, joinTime) // who does not answer is none to follow
	for _, s := range all {
		if s.Mountpoint == cfg.Mountpoint && s.Dest == cfg.Dest && s.Version == cfg.Release && s.State != control.Failed {
			return s, true
		}
	}
	return control.Status{}, false
}
