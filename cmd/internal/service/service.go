// Package service tells the service manager how this process is, when systemd
// started it with Type=notify, and has it keep what shall outlive the process;
// elsewhere it does nothing.
//
// It must never keep a process from its work: a manager that does not listen is
// no error. It must never ping the watchdog by a clock of its own, which would
// go on when everything else hangs: whoever does the work says that it is alive.
package service

import (
	"log/slog"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Manager is the service manager of this process. Its methods are safe for
// concurrent use, and a nil one does nothing.
type Manager struct {
	log   *slog.Logger
	every time.Duration // between two pings; 0: nobody wants them

	mu     sync.Mutex
	ready  bool
	status string
	last   time.Time
}

// Find returns the manager that started this process.
func Find(log *slog.Logger) *Manager {
	m := &Manager{log: log}
	m.every = watchdog() / 3 // a ping may be late by as much again
	return m
}

// watchdog is how often this process has to say that it lives; 0 for never. A
// process whose parent keeps its mount speaks for that, which
// is whom systemd started.
func watchdog() time.Duration {
	pid, _ := strconv.Atoi(os.Getenv("WATCHDOG_PID"))
	usec, _ := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if pid != os.Getpid() && pid != os.Getppid() {
		return 0
	}
	return max(0, time.Duration(usec)*time.Microsecond)
}

// Ready says that what the service is for works now. Further calls do nothing.
func (m *Manager) Ready() {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.ready {
		m.ready = true
		m.tell(daemon.SdNotifyReady)
	}
}

// Status says in a few words what the process does.
func (m *Manager) Status(text string) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if text != m.status {
		m.status = text
		m.tell("STATUS=" + text)
	}
}

// Stopping says that the process is about to end.
func (m *Manager) Stopping() {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tell(daemon.SdNotifyStopping)
}

// Alive is called by whoever does the work, as often as it likes; the watchdog
// hears of it as often as it wants.
func (m *Manager) Alive() {
	if m == nil || m.every == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if now := time.Now(); now.Sub(m.last) >= m.every {
		m.last = now
		m.tell(daemon.SdNotifyWatchdog)
	}
}

func (m *Manager) tell(what string) {
	if _, err := daemon.SdNotify(false, what); err != nil {
		m.log.Debug("the service manager does not listen", "cause", err)
	}
}
