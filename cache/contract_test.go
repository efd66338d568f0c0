package cache

import (
	"sync"
	"testing"

	"dcfs/cache/piece"
	"dcfs/fs/contract"
)

// What is read through the store keeps to what the mount and the copy count on,
// whether pieces come from peers, lie on the disk, or are read there because RAM
// refused them.
func TestContentContract(t *testing.T) {
	const total, length = 300_001, 16 << 10
	for name, options := range map[string][]func(*Config, *rig){
		"from peers": nil, "without memory": {noMemory}, "ahead": {func(c *Config, _ *rig) { c.Ahead = 4 << 10 }},
	} {
		t.Run(name, func(t *testing.T) {
			contract.Run(t, func(t *testing.T) contract.Subject {
				r := newRig(t, total, length, options...)
				r.start()
				var once sync.Once
				return contract.Subject{Content: r.Store, Data: r.src, Release: func() {
					once.Do(func() {
						for i := range piece.Index(r.Layout().Count()) {
							if err := r.deliver(i); err != nil {
								t.Error(err)
							}
						}
					})
				}}
			})
		})
	}
}
