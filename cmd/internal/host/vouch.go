// Package host answers what this host knows by itself: whether a directory is
// a complete release, and which release a word means, with or without an
// origin that answers.
//
// It must never change anything, and never call a directory complete or a
// release trusted on somebody else's word.
package host

import (
	"context"
	"errors"
	"time"

	"dcfs/fs/activate"
	"dcfs/fs/materialise"
)

// mountPatience is how long a mount may take to answer.
const mountPatience = 2 * time.Second

// Vouch returns nil when target is a complete, verified release directory by
// this host's receipts, or a live mount.
func Vouch(ctx context.Context, state, target string) error {
	// The mount first: a stat below one that hangs would hang, too.
	ctx, cancel := context.WithTimeout(ctx, mountPatience)
	defer cancel()
	live, err := activate.IsLiveMount(ctx, target)
	if err != nil || live {
		return err
	}
	_, complete, err := materialise.Lookup(state, target)
	if err != nil || complete {
		return err
	}
	return errors.New("no receipt says that it is a complete release, and it is no live mount")
}
