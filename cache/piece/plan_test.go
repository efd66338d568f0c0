package piece

import (
	"testing"

	"pgregory.net/rapid"
)

// replay keeps the urgencies that the changes of a plan amount to.
type replay map[Index]Urgency

func (r replay) take(t *rapid.T, changes []Change) {
	for _, c := range changes {
		if r[c.Piece] == c.Urgency {
			t.Fatalf("piece %d: told twice that it is %v", c.Piece, c.Urgency)
		}
		r[c.Piece] = c.Urgency
	}
}

// Whatever happens, the changes tell all, a demanded piece stays in demand until
// it is relaxed, and nothing sinks below its base.
func TestPlanUnderRandomOperations(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 2*MaxAhead).Draw(t, "n")
		p, told := NewPlan(n), replay{}
		base, demanded := map[Index]Urgency{}, map[Index]bool{}
		for range rapid.IntRange(1, 60).Draw(t, "operations") {
			first := Index(rapid.IntRange(-3, n+3).Draw(t, "first"))
			r := Range{First: first, End: first + Index(rapid.IntRange(-1, n).Draw(t, "len"))}
			u := Urgency(rapid.IntRange(int(None), int(Demand)).Draw(t, "urgency"))
			switch rapid.SampledFrom([]string{"base", "want", "relax"}).Draw(t, "operation") {
			case "base":
				u = min(u, Trace)
				told.take(t, p.Base(r, u))
				for i := max(r.First, 0); i < min(r.End, Index(n)); i++ {
					base[i] = u
				}
			case "want":
				told.take(t, p.Want(r, u))
				for i := max(r.First, 0); u == Demand && i < min(r.End, Index(n)); i++ {
					demanded[i] = true
				}
			case "relax":
				told.take(t, p.Relax(r))
				for i := max(r.First, 0); i < min(r.End, Index(n)); i++ {
					delete(demanded, i)
				}
			}
			ahead := 0
			for i := range Index(n) {
				got := p.Urgency(i)
				if told[i] != got || got < base[i] || demanded[i] && got != Demand {
					t.Fatalf("piece %d is %v; told %v, base %v, demanded %t", i, got, told[i], base[i], demanded[i])
				}
				if got != Demand && got > base[i] {
					ahead++
				}
			}
			if ahead > MaxAhead {
				t.Fatalf("%d pieces are wanted ahead of readers", ahead)
			}
		}
	})
}

// The order of the issue: demand, window, trace, neighbours, background.
func TestPlanOrder(t *testing.T) {
	p := NewPlan(10)
	all := Range{First: 0, End: 10}
	p.Base(all, Background)
	p.Base(Range{First: 4, End: 6}, Trace)
	p.Want(Range{First: 0, End: 1}, Demand)
	p.Want(Range{First: 0, End: 3}, Window)
	p.Want(Range{First: 3, End: 5}, Neighbour)
	for i, want := range []Urgency{Demand, Window, Window, Neighbour, Trace, Trace, Background} {
		if got := p.Urgency(Index(i)); got != want {
			t.Errorf("piece %d: %v, want %v", i, got, want)
		}
	}
	p.Relax(all)
	if p.Urgency(0) != Background || p.Urgency(4) != Trace || p.Urgency(-1) != None || p.Urgency(10) != None {
		t.Error("what is left when the readers are gone is not the base")
	}
}

// A reader that goes on leaves the pieces behind that it did not read.
func TestPlanForgetsOldWindows(t *testing.T) {
	p := NewPlan(10 * MaxAhead)
	p.Base(Range{First: 0, End: 10 * MaxAhead}, Background)
	p.Want(Range{First: 1, End: 2}, Window)
	p.Want(Range{First: 1, End: 2}, Demand) // now somebody waits for it
	for i := Index(5); i < 5*MaxAhead; i++ {
		p.Want(Range{First: i, End: i + 1}, Window)
	}
	if p.Urgency(5) != Background || p.Urgency(5*MaxAhead-1) != Window || p.Urgency(1) != Demand {
		t.Errorf("the oldest is %v, the newest %v, the demanded %v", p.Urgency(5), p.Urgency(5*MaxAhead-1), p.Urgency(1))
	}
}
