package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/urfave/cli/v2"

	"dcfs/cmd/internal/agent"
	"dcfs/cmd/internal/detach"
	"dcfs/cmd/internal/holder"
	"dcfs/cmd/internal/service"
	"dcfs/fs"
)

// keepMount is the life of the process that keeps a mount and has a child serve
// it. It returns false at once when this process is to serve the mount itself:
// without --survive, and where the copy comes to stand at the mountpoint.
func keepMount(c *cli.Context, cfg agent.Config) (done bool, err error) {
	log, err := logger(c, c.App.ErrWriter)
	if err != nil {
		return false, err
	}
	store, text, files := service.OpenStore(log)
	found := holder.Renewed()
	renewed := found != nil
	if !renewed && len(files) > 0 {
		found = &holder.Deposit{Text: text, Files: files}
	}
	survive := c.Bool("survive") && cfg.Dest != cfg.Mountpoint
	if found != nil && !(survive && fits(found, cfg)) {
		log.Info("what a former process kept is of another mount, or of one that has ended")
		found.Close()
		found = nil
		store.Clear()
	}
	if !survive {
		return false, nil
	}
	if renewed && found != nil {
		if err := store.Replace(found.Text, found.Files); err != nil {
			log.Warn("the mount will not survive this process", "cause", err)
		}
	}
	parent := holder.Config{Argv: os.Args, Pass: detach.Pass(), Found: found, Log: log}
	if store != nil {
		parent.Store = store
	}
	return true, holder.Run(c.Context, parent)
}

// fits says whether a life as cfg has it can go on with what was kept.
func fits(d *holder.Deposit, cfg agent.Config) bool {
	h, err := heritage(d.Text, d.Files)
	return err == nil && h.Fits(cfg)
}

// beHeld joins a life to the process that keeps its mount, if there is one.
func beHeld(held *holder.Child, cfg *agent.Config) (err error) {
	if held == nil {
		cfg.PID = os.Getpid()
		return nil
	}
	cfg.PID = held.Parent
	cfg.Hold = func(h agent.Heritage) error {
		text, err := json.Marshal(h)
		if err != nil {
			return err
		}
		files := []*os.File{h.Mount.Device, h.Mount.Below}
		if h.Written != nil {
			files = append(files, h.Written)
		}
		return held.Deposit(text, files...)
	}
	if len(held.Files) > 0 { // not the first of its lives
		cfg.Resume, err = heritage(held.Text, held.Files)
	}
	return err
}

// heritage reads what a life deposited.
func heritage(text []byte, files []*os.File) (*agent.Heritage, error) {
	if len(files) != 2 && len(files) != 3 {
		return nil, fmt.Errorf("what a process that died left: %d files", len(files))
	}
	h := &agent.Heritage{Mount: fs.Held{Device: files[0], Below: files[1]}}
	if len(files) == 3 {
		h.Written = files[2]
	}
	if err := json.Unmarshal(text, h); err != nil {
		return nil, fmt.Errorf("what a process that died left: %w", err)
	}
	return h, nil
}
