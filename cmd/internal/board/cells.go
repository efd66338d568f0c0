package board

import (
	"dcfs/cache/piece"
	"dcfs/cmd/internal/control"
)

// cellCount is how many parts the map of a release has.
func cellCount(pieces int) int { return min(pieces, control.MaxCells) }

// Cells is the map of a set of pieces for a control.Report; nil when it is
// empty or full.
func Cells(set *piece.Set) []byte {
	if set.Len() == 0 || set.Full() {
		return nil
	}
	n := set.Cap()
	out := make([]byte, cellCount(n))
	for c := range out {
		first, end := c*n/len(out), (c+1)*n/len(out)
		have := 0
		for i := first; i < end; i++ {
			if set.Has(piece.Index(i)) {
				have++
			}
		}
		out[c] = byte(255 * have / (end - first))
	}
	return out
}

// strip is a map with few cells. A map of nil is one of a host that has
// everything, or nothing.
func strip(cells []byte, whole bool, pieces int) []byte {
	out := make([]byte, min(stripCells, cellCount(pieces)))
	for c := range out {
		if cells == nil {
			if whole {
				out[c] = 255
			}
			continue
		}
		first, end := c*len(cells)/len(out), (c+1)*len(cells)/len(out)
		sum := 0
		for _, v := range cells[first:end] {
			sum += int(v)
		}
		out[c] = byte(sum / (end - first))
	}
	return out
}

// heat counts the hosts that have each part. Hosts that have a half of a part
// count half; the sum is rounded down.
func heat(hosts []Host, pieces int) []int {
	sum := make([]int, cellCount(pieces))
	for n := range hosts {
		h := &hosts[n]
		switch {
		case h.State == stateLost:
		case h.cells != nil && len(h.cells) == len(sum):
			for c, v := range h.cells {
				sum[c] += int(v)
			}
		case h.whole():
			for c := range sum {
				sum[c] += 255
			}
		}
	}
	for c := range sum {
		sum[c] /= 255
	}
	return sum
}

func rarest(cells []int) int {
	if len(cells) == 0 {
		return 0
	}
	least := cells[0]
	for _, n := range cells {
		least = min(least, n)
	}
	return least
}

// mine is how much of each part a host has, of 255.
func mine(h *Host, pieces int) []int {
	out := make([]int, cellCount(pieces))
	for c := range out {
		switch {
		case len(h.cells) == len(out):
			out[c] = int(h.cells[c])
		case h.Progress == 1:
			out[c] = 255
		}
	}
	return out
}
