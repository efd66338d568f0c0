package cache

import (
	"context"
	"fmt"
	"time"

	"dcfs/cache/piece"
)

const (
	// saveEvery is how often the pieces written since are made durable and
	// recorded; a crash costs at most what came after the last time.
	saveEvery = 5 * time.Second
	// diskRetry is how long a refused write waits for the disk to recover.
	diskRetry = time.Second
)

// disk is what the store knows of its backing. The store's lock guards it,
// except for saving.
type disk struct {
	saving   chan struct{} // one slot, held while a record is made: an older one must not replace a newer
	unsaved  bool          // written or claimed pieces changed since the last record
	unsynced *piece.Set    // written since the last record
	redo     *piece.Set    // written, but not made durable by a record that failed
	writeErr error         // why the backing refuses writes at present
	writeBad time.Time     // since when
	saveErr  error         // why what was written cannot be made durable or recorded at present
	saveBad  time.Time     // since when
}

func (d *disk) init(n int) {
	d.saving, d.unsynced, d.redo = make(chan struct{}, 1), piece.NewSet(n), piece.NewSet(n)
}

func (d *disk) forget(i piece.Index) {
	d.unsaved = true
	d.unsynced.Remove(i)
	d.redo.Remove(i)
}

// DiskError returns why the backing refuses at present, and since when, or nil.
// The error wraps ErrDisk.
//
//lint:ignore ST1008 the error is the subject here, and not how the call went
func (s *Store) DiskError() (error, time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.disk.writeErr != nil {
		return s.disk.writeErr, s.disk.writeBad
	}
	return s.disk.saveErr, s.disk.saveBad
}

// Run writes verified pieces to the backing until ctx ends, and records from
// time to time which of them are durable. It returns nil; failures of the disk
// are reported by DiskError and tried again.
func (s *Store) Run(ctx context.Context) error {
	save := time.NewTicker(saveEvery)
	defer save.Stop()
	for ctx.Err() == nil {
		var wake <-chan struct{}
		if !s.writeNext(ctx) {
			wake = s.work
		} else {
			wake = closed // go on at once, but do not starve the ticker
		}
		select {
		case <-save.C:
			_ = s.saveIfChanged(ctx) // DiskError tells
			continue
		default:
		}
		select {
		case <-ctx.Done():
		case <-wake:
		case <-save.C:
			_ = s.saveIfChanged(ctx)
		}
	}
	return nil
}

var closed = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// writeNext writes the oldest dirty piece. It reports whether to go on at once.
func (s *Store) writeNext(ctx context.Context) bool {
	s.mu.Lock()
	if len(s.queue) == 0 {
		redo := s.nextRedo()
		s.mu.Unlock()
		return redo >= 0 && s.requeue(redo)
	}
	i := s.queue[0]
	b := s.dirty[i]
	s.mu.Unlock()
	_, err := s.cfg.Backing.WriteAt(b, s.cfg.Layout.Offset(i))
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.refused(ctx, i, err)
		return true
	}
	if s.disk.writeErr != nil {
		s.cfg.Log.Info("the disk takes writes again", "after", time.Since(s.disk.writeBad).Round(time.Second))
		s.disk.writeErr = nil
	}
	s.queue = s.queue[1:]
	s.bytes -= int64(len(b))
	delete(s.dirty, i)
	s.written.Add(i)
	s.disk.unsynced.Add(i)
	s.disk.unsaved = true
	s.room.Broadcast()
	if len(s.queue) == 0 {
		s.queue = nil
		s.idle.Broadcast()
	}
	return true
}

// refused notes why the disk failed and waits a little. s.mu is held on entry
// and on return.
func (s *Store) refused(ctx context.Context, i piece.Index, err error) {
	if s.disk.writeErr == nil {
		s.disk.writeBad = time.Now()
		s.cfg.Log.Error("the disk refuses a piece; trying again", "piece", i, "cause", err)
	}
	s.disk.writeErr = fmt.Errorf("%w: writing piece %d: %w", ErrDisk, i, err)
	s.idle.Broadcast()
	s.room.Broadcast()
	s.mu.Unlock()
	defer s.mu.Lock()
	retry := time.NewTimer(diskRetry)
	defer retry.Stop()
	select {
	case <-ctx.Done():
	case <-retry.C:
	}
}

// nextRedo takes a piece that must be written again, or -1. s.mu is held.
func (s *Store) nextRedo() piece.Index {
	for i := range s.disk.redo.All() {
		return i
	}
	return -1
}

// requeue pins a piece that must be written again. Its bytes come from RAM or
// from the kernel's page cache, which still has them after a failed sync, or
// else the piece is lost.
func (s *Store) requeue(i piece.Index) bool {
	b, ok := s.cfg.Memory.get(s.memKey(i))
	if !ok {
		var err error
		if b, err = s.hashed(i); err != nil {
			s.lost(i, err)
			return true
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.disk.redo.Remove(i) {
		s.pin(i, b)
	}
	return true
}

// Flush waits until every verified piece is written and durable, or returns
// the disk's error, which wraps ErrDisk, as soon as it refuses. Run must be
// running.
func (s *Store) Flush(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		s.mu.Lock()
		s.idle.Broadcast()
		s.mu.Unlock()
	})
	defer stop()
	s.mu.Lock()
	for s.unwritten() > 0 && s.disk.writeErr == nil && !s.closed && ctx.Err() == nil {
		s.idle.Wait()
	}
	left, diskErr := s.unwritten(), s.disk.writeErr
	s.mu.Unlock()
	switch {
	case left == 0:
		return s.save(ctx)
	case ctx.Err() != nil:
		return fmt.Errorf("waiting for %d pieces to be written: %w", left, context.Cause(ctx))
	case diskErr != nil:
		return diskErr
	default:
		return fmt.Errorf("the store was closed with %d pieces unwritten", left)
	}
}

// unwritten counts the verified pieces that the backing must yet take. s.mu is
// held.
func (s *Store) unwritten() int { return len(s.queue) + s.disk.redo.Len() }

func (s *Store) saveIfChanged(ctx context.Context) error {
	s.mu.Lock()
	changed := s.disk.unsaved
	s.mu.Unlock()
	if !changed {
		return nil
	}
	return s.save(ctx)
}

// save has the backing make durable what was written, and record it.
func (s *Store) save(ctx context.Context) error {
	select {
	case s.disk.saving <- struct{}{}:
		defer func() { <-s.disk.saving }()
	case <-ctx.Done():
		return fmt.Errorf("waiting for pieces to be recorded: %w", context.Cause(ctx))
	}
	s.mu.Lock()
	have := s.written.Clone()
	for i := range s.claimed.All() {
		have.Add(i) // recorded by a former process; hashed before use
	}
	batch := s.disk.unsynced
	s.disk.unsynced, s.disk.unsaved = piece.NewSet(batch.Cap()), false
	s.mu.Unlock()
	err := s.cfg.Backing.SaveHave(have.Bytes())
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.disk.saveErr = nil
		return nil
	}
	err = fmt.Errorf("%w: making pieces durable: %w", ErrDisk, err)
	if s.disk.saveErr == nil {
		s.disk.saveBad = time.Now()
		s.cfg.Log.Error("the disk does not make pieces durable; trying again", "cause", err)
	}
	s.disk.saveErr = err
	s.redo(batch)
	return err
}

// redo takes note that a batch of written pieces did not become durable. They
// must be written again: after a failed sync the kernel forgets that their
// pages were dirty, and the next sync would succeed without them. s.mu is held.
func (s *Store) redo(batch *piece.Set) {
	s.disk.unsaved = true
	for i := range batch.All() {
		if s.written.Remove(i) { // else it was lost meanwhile
			s.disk.redo.Add(i)
		}
	}
	select {
	case s.work <- struct{}{}:
	default:
	}
}
