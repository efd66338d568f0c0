package piece

// MaxAhead bounds how many pieces are wanted at the same time because somebody
// may read them soon.
const MaxAhead = 256

// Plan says how urgent each piece is, from all that is known: what the
// background is to bring (Base), and what readers want (Want). It decides, and
// does nothing: whoever owns it carries its decisions out.
//
// Demand goes before Window, that before Trace, Neighbour and Background. A
// reader's wish only ever raises a piece above its base, so the background goes
// on where no reader is, and gets nothing taken away for good: of what is wanted
// ahead of readers only the newest MaxAhead pieces are, and older ones fall back
// to their base. It is not safe for concurrent use.
type Plan struct {
	base, want []Urgency
	ahead      []Index // wanted for less than Demand, the oldest first
}

// Change is a piece whose urgency is another one now.
type Change struct {
	Piece   Index
	Urgency Urgency
}

// NewPlan returns a plan for n pieces that nobody wants.
func NewPlan(n int) *Plan {
	return &Plan{base: make([]Urgency, n), want: make([]Urgency, n)}
}

// Urgency returns how much piece i is wanted.
func (p *Plan) Urgency(i Index) Urgency {
	if i < 0 || int(i) >= len(p.base) {
		return None
	}
	return max(p.base[i], p.want[i])
}

// Base sets what the pieces of r are wanted for when nobody reads them.
func (p *Plan) Base(r Range, u Urgency) []Change {
	return p.each(r, func(i Index) { p.base[i] = u })
}

// Want raises what readers want the pieces of r for to at least u.
func (p *Plan) Want(r Range, u Urgency) []Change {
	out := p.each(r, func(i Index) {
		if p.want[i] == None && u != None && u < Demand {
			p.ahead = append(p.ahead, i)
		}
		p.want[i] = max(p.want[i], u)
	})
	for len(p.ahead) > MaxAhead {
		i := p.ahead[0]
		p.ahead = p.ahead[1:]
		if p.want[i] < Demand {
			out = append(out, p.Relax(Range{First: i, End: i + 1})...)
		}
	}
	return out
}

// Relax takes back what readers wanted the pieces of r for.
func (p *Plan) Relax(r Range) []Change {
	return p.each(r, func(i Index) { p.want[i] = None })
}

// each makes a change for each piece of r, and returns what came of it.
func (p *Plan) each(r Range, change func(Index)) (out []Change) {
	for i := max(r.First, 0); i < min(r.End, Index(len(p.base))); i++ {
		before := p.Urgency(i)
		change(i)
		if u := p.Urgency(i); u != before {
			out = append(out, Change{i, u})
		}
	}
	return out
}
