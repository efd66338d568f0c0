package detach

import (
	"encoding/json"
	"os"
	"sync"
	"syscall"

	"dcfs/cmd/internal/control"
)

// Reporter is the child's end of the pipe. The zero value and nil report to
// nobody. It is safe for concurrent use.
type Reporter struct {
	mu   sync.Mutex
	pipe *os.File
}

// Inherit returns the reporter of a process that Start made, and nil in any
// other. It takes the sign away, so that the child's own children do not take
// themselves for ours.
func Inherit() *Reporter {
	if os.Getenv(eventsEnv) == "" {
		return nil
	}
	os.Unsetenv(eventsEnv)
	syscall.CloseOnExec(eventsFD)
	pipe := os.NewFile(eventsFD, "events")
	if fi, err := pipe.Stat(); err != nil || fi.Mode().Type() != os.ModeNamedPipe {
		return nil // somebody exported the variable
	}
	return &Reporter{pipe: pipe}
}

// Started reports whether Start made this process. It is false after Inherit.
func Started() bool { return os.Getenv(eventsEnv) != "" }

// Pass returns the pipe for a child that is to Inherit in the place of this
// process, and nil when there is none.
func Pass() *os.File {
	if !Started() {
		return nil
	}
	return os.NewFile(eventsFD, "events")
}

// State tells the parent of a new state.
func (r *Reporter) State(s control.Status) { r.send(event{Status: &s}) }

// End tells the parent how the process ends: with what text, hint and exit
// code. An empty text means that all went well.
func (r *Reporter) End(text, hint string, code int) {
	r.send(event{End: &end{text, hint, code}})
}

// send writes a line. The parent goes away when it has seen enough: from the
// first failed write on, there is nobody to tell.
func (r *Reporter) send(e event) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pipe == nil {
		return
	}
	line, err := json.Marshal(e)
	if err == nil {
		_, err = r.pipe.Write(append(line, '\n'))
	}
	if err != nil {
		r.pipe.Close()
		r.pipe = nil
	}
}
