package faults

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"

	"dcfs/fs/durable"
)

// random is what differs in names from run to run.
var random = regexp.MustCompile(`\.tmp-[0-9a-f]+|[0-9a-f]{32}`)

// Log writes down the calls that change the disk, in order. Pairs of old and
// new strings take out of the paths what differs from run to run.
type Log struct {
	names *strings.Replacer
	mu    sync.Mutex
	lines []string
}

// NewLog returns an empty log.
func NewLog(oldnew ...string) *Log { return &Log{names: strings.NewReplacer(oldnew...)} }

// Disk returns a disk whose changes are written down.
func (l *Log) Disk() durable.Disk {
	return durable.Disk{Before: func(op, path string) error {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.lines = append(l.lines, fmt.Sprint(op, " ", random.ReplaceAllString(l.names.Replace(path), "*")))
		return nil
	}}
}

// Golden compares the log with the file golden, or writes that anew.
func (l *Log) Golden(t *testing.T, golden string, update bool) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	got := strings.Join(l.lines, "\n") + "\n"
	if update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the calls are\n%s\nwant (-update writes them anew)\n%s", got, want)
	}
}
