package trade

import "time"

const (
	calmEvery = 100 * time.Millisecond // peers are told again
	holdFrom  = 4 * time.Millisecond   // that a block of each peer takes to come
	holdMost  = 2 * time.Second
	holdPause = 200 * time.Millisecond // after as long as that
	holdFresh = 500 * time.Millisecond // for a piece of which nothing came for longer nobody is held up
)

// calm is what other hosts are asked for while somebody waits here for a piece. What
// they have under way to this host comes before that piece, and nobody but this
// host knows of all of it.
type calm struct {
	flight time.Duration // no more than comes in it is to be under way
	until  time.Time
	told   time.Time
	hold   bool      // the others are to send nothing of the rest
	since  time.Time // when that began
	pause  time.Time // until when it is not to be
}

// Calm asks all that send pieces here to keep no more under way together than
// comes in t, for a while, or one block each: somebody waits here for a piece.
// On links where these blocks take long, they are to send nothing of the rest
// until the piece is here.
func (p *Plan) Calm(t time.Duration) {
	p.calm.flight, p.calm.until = t, p.now.Add(calmLinger)
	p.keepCalm()
}

// keepCalm tells the others when there is news, and before they forget it.
func (p *Plan) keepCalm() {
	c := &p.calm
	if p.now.After(c.until) || p.pace.rate == 0 {
		return
	}
	from := p.senders()
	hold := p.holds(len(from))
	if hold == c.hold && p.now.Sub(c.told) < calmEvery {
		return
	}
	if hold && !c.hold {
		c.since = p.now
	}
	c.hold, c.told = hold, p.now
	for _, q := range from {
		m := Message{Kind: Calm}
		if !hold {
			m.Off = max(1, min(int64(p.pace.rate*c.flight.Seconds())/int64(len(from)), maxFlight))
		}
		p.out = append(p.out, Send{q.id, m})
	}
}

// holds says whether so many others are to send nothing of the rest: somebody waits
// for what is under way, one block of each takes long, and this host's own link is
// what bounds the rate. Now and then they may, for the rest goes on, too.
func (p *Plan) holds(others int) bool {
	c := &p.calm
	if c.hold && p.now.Sub(c.since) > holdMost {
		c.pause = p.now.Add(holdPause)
	}
	if p.now.Before(c.pause) || p.pace.rate < p.peak/2 || float64(others)*BlockLength < p.pace.rate*holdFrom.Seconds() {
		return false
	}
	for _, a := range p.asked {
		if a.degree == Urgent && !a.hashing && p.now.Sub(a.waited) < holdFresh {
			return true
		}
	}
	return false
}

// senders lists the peers that were asked for something.
func (p *Plan) senders() (out []*peer) {
	for _, q := range p.order {
		if len(q.asked) > 0 {
			out = append(out, q)
		}
	}
	return out
}
