package fs

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dcfs/fs/tree"
)

func TestLate(t *testing.T) {
	var l late
	now := time.Now()
	if l.again(1, 0, 10, now) {
		t.Error("refused at first")
	}
	l.note(1, 4096, 8192, now)
	for _, c := range []struct {
		file   tree.ID
		off, n int64
		after  time.Duration
		want   bool
	}{
		{1, 4096, 8192, 0, true}, {1, 8192, 4096, lateFor, true}, {2, 4096, 10, 0, false},
		{1, 0, 4096, 0, false}, {1, 8192, 8192, 0, false}, {1, 4096, 4096, lateFor + 1, false}, {1, 4096, 4096, 0, false},
	} {
		if got := l.again(c.file, c.off, c.n, now.Add(c.after)); got != c.want {
			t.Errorf("%+v: %t", c, got)
		}
	}
	for range 2 * maxLate {
		l.note(1, 0, 1, now)
	}
	if len(l.list) != maxLate {
		t.Errorf("%d refusals are remembered", len(l.list))
	}
}

// A program that reads with readahead waits for one deadline, and one line is
// logged, although the kernel asks twice.
func TestOneDeadlineForOneRead(t *testing.T) {
	tr := smallTree()
	m := newMemory(tr)
	m.close(0, tr.Total())
	log := &logs{}
	mp := t.TempDir()
	const timeout = 2 * time.Second
	mountAt(t, mp, Config{Tree: tr, Content: m, ReadTimeout: timeout, Log: log.logger()})
	began := time.Now()
	if got := run(t, "readahead", mp+"/d/a", "8192", "4096"); strings.TrimSpace(got) != unix.EIO.Error() {
		t.Errorf("got %q, want EIO", got)
	}
	if took := time.Since(began); took < timeout || took > 2*timeout-timeout/4 {
		t.Errorf("the read ended after %s, and its deadline is %s", took, timeout)
	}
	if n := strings.Count(log.String(), "read failed"); n != 1 {
		t.Errorf("%d lines in the log:\n%s", n, log)
	}
	m.open()
	want := digest(m.file(tr, "d/a")[8192:12288])
	if got := strings.TrimSpace(run(t, "readahead", mp+"/d/a", "8192", "4096")); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
