package tracker

import "math/rand/v2"

// enrack notes in which rack a peer that was in none stands.
func (s *swarm) enrack(p *peer, rack string) {
	if p.rack = rack; rack != "" {
		p.place = len(s.racks[rack])
		s.racks[rack] = append(s.racks[rack], p)
	}
}

// unrack moves the last peer of p's rack into p's place.
func (s *swarm) unrack(p *peer) {
	if p.rack == "" {
		return
	}
	mates := s.racks[p.rack]
	last := len(mates) - 1
	mates[p.place] = mates[last]
	mates[p.place].place = p.place
	mates[last] = nil
	if s.racks[p.rack] = mates[:last]; last == 0 {
		delete(s.racks, p.rack)
	}
	p.rack = ""
}

// draw draws the peers that self is told of: up to half of them from its rack, so
// that the rack's members know each other however large the swarm is, and the
// others from everywhere, so that no rack is cut off.
func (s *swarm) draw(self *peer, want int) []contact {
	near := s.mates(self, want/2)
	if len(near) == 0 {
		return s.sample(self, want)
	}
	known := make(map[[20]byte]bool, len(near))
	for _, c := range near {
		known[c.id] = true
	}
	for _, c := range s.sample(self, want) {
		if len(near) == want {
			break
		}
		if !known[c.id] {
			near = append(near, c)
		}
	}
	rand.Shuffle(len(near), func(i, j int) { near[i], near[j] = near[j], near[i] })
	return near
}

// mates draws at most want of self's rack, from a random one on. Two seeds have
// nothing to give each other.
func (s *swarm) mates(self *peer, want int) (out []contact) {
	all := s.racks[self.rack]
	if self.rack == "" || len(all) < 2 {
		return nil
	}
	start := rand.IntN(len(all))
	for k := range min(len(all), maxMates) {
		p := all[(start+k)%len(all)]
		if len(out) == want {
			break
		}
		if p != self && !(p.seed && self.seed) {
			out = append(out, contact{p.id, p.addr})
		}
	}
	return out
}

// maxMates bounds how many of a rack are looked at for one answer.
const maxMates = 4 * maxWant
