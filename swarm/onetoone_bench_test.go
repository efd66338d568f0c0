package swarm

import (
	"context"
	"testing"

	"dcfs/swarm/gate/gatetest"
)

// BenchmarkOneToOne moves 512 MiB from one host to one other over loopback, in
// one process, with RAM in the place of disks: what the exchange itself costs.
func BenchmarkOneToOne(b *testing.B) {
	ca := gatetest.NewCA(b, "fleet")
	for name, open := range map[string]bool{"plain": true, "TLS": false} {
		b.Run(name, func(b *testing.B) {
			rel := newRelease(b, 512<<20, 256<<10)
			config := func() NodeConfig {
				c := NodeConfig{Trade: true}
				if !open {
					c.Gate = gateOf(b, ca)
				}
				return c
			}
			seed := newHost(b, rel, true, config())
			spec := seed.spec()
			spec.Steer = true
			seed.join(spec)
			b.SetBytes(rel.layout.Total)
			for b.Loop() {
				b.StopTimer()
				h := newHost(b, rel, false, config())
				ctx, cancel := context.WithTimeout(b.Context(), patience)
				b.StartTimer()
				h.joinPeers(seed)
				select {
				case <-h.store.Complete():
				case <-ctx.Done():
					b.Fatal("not complete")
				}
				b.StopTimer()
				cancel()
				h.leave()
				b.StartTimer()
			}
		})
	}
}
