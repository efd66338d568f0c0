package board

import (
	"strings"
	"time"
)

// ownClient begins the client name of every dcfs process.
const ownClient = "dcfs/"

// regard makes events of stock clients of a release that came and that left since
// somebody looked last: nobody tells of them but who sees them. One that is not
// connected to this process has no client name and makes none. b.view is held.
func (b *Board) regard(it Item, hosts []Host, now time.Time) {
	tell := func(kind, addr, client string) {
		b.events.add(Event{Time: now, Kind: kind, Version: it.Version, Host: addr, Text: client})
	}
	before, here := b.stock[it.Infohash], make(map[string]string)
	listed := make(map[string]bool, len(hosts))
	for i := range hosts {
		h := &hosts[i]
		listed[h.Addr] = true
		switch client, known := before[h.Addr]; {
		case known: // also while it is not connected
			here[h.Addr] = client
		case h.Client != "" && !strings.HasPrefix(h.Client, ownClient):
			here[h.Addr] = h.Client
			tell("came", h.Addr, h.Client)
		}
	}
	for addr, client := range before {
		if !listed[addr] {
			tell("left", addr, client)
		}
	}
	if b.stock[it.Infohash] = here; len(here) == 0 {
		delete(b.stock, it.Infohash)
	}
}
