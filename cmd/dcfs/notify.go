package main

import (
	"fmt"

	"dcfs/cmd/internal/agent"
	"dcfs/cmd/internal/control"
	"dcfs/cmd/internal/service"
)

// notify keeps the service manager informed of a life. A mount is ready when
// its tree is there, a fetch when the copy is.
func notify(m *service.Manager, cfg *agent.Config) (onState func(control.Status)) {
	ready := control.Materialised
	if cfg.Mountpoint != "" {
		ready = control.Mounted
	}
	cfg.OnBeat = m.Alive
	return func(s control.Status) {
		m.Status(fmt.Sprintf("%s %s: %s", s.Version, s.State, orElse(s.Reason, where(s))))
		switch {
		case s.State == control.Done || s.State == control.Failed:
			m.Stopping()
		case s.State.Reached(ready):
			m.Ready()
		}
	}
}

func orElse(text, other string) string {
	if text == "" {
		return other
	}
	return text
}
