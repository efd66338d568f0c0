package piece

import (
	"testing"

	"pgregory.net/rapid"
)

func TestStreamsTellReadsInOrderFromOthers(t *testing.T) {
	const mib = 1 << 20
	type read struct{ off, n, run int64 }
	for name, reads := range map[string][]read{
		"alone":        {{0, 4096, 0}, {100 * mib, 4096, 0}, {50 * mib, 4096, 0}, {200 * mib, mib, 0}},
		"in order":     {{0, 100, 0}, {100, 50, 50}, {150, 50, 100}},
		"padding":      {{0, 1000, 0}, {4096, 1000, 4096}},
		"again":        {{0, 1000, 0}, {0, 1000, 0}, {500, 100, 0}, {500, 1000, 500}},
		"overtaken":    {{0, mib, 0}, {mib, mib, mib}, {3 * mib, mib, 3 * mib}, {2 * mib, mib, 3 * mib}, {4 * mib, mib, 4 * mib}},
		"two at once":  {{0, 10, 0}, {mib, 10, 0}, {10, 10, 10}, {mib + 10, 10, 10}, {20, 10, 20}},
		"jumps ahead":  {{0, mib, 0}, {mib, mib, mib}, {4 * mib, 4096, 0}},
		"jumps behind": {{9 * mib, mib, 0}, {10 * mib, mib, mib}, {0, 4096, 0}},
	} {
		var s Streams
		for k, r := range reads {
			if run := s.Read(r.off, r.n); run != r.run {
				t.Errorf("%s: read %d: a run of %d, want %d", name, k, run, r.run)
			}
		}
	}
}

// As many streams as there is room for are told apart, and no more remembered.
func TestStreamsAreBounded(t *testing.T) {
	var s Streams
	const apart = 10 << 20
	for round := range int64(3) {
		for k := range int64(maxStreams) {
			if run := s.Read(k*apart+round*100, 100); run != round*100 {
				t.Fatalf("round %d, stream %d: a run of %d", round, k, run)
			}
		}
	}
	s.Read(maxStreams*apart, 100)
	if run := s.Read(apart+300, 100); run == 0 || len(s.list) != maxStreams {
		t.Errorf("the second oldest has a run of %d; %d are remembered", run, len(s.list))
	}
	if run := s.Read(300, 100); run != 0 {
		t.Errorf("the oldest is remembered beyond the bound: %d", run)
	}
}

func TestStreamsUnderRandomReads(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s Streams
		var last int64 // byte behind the farthest read
		for range rapid.IntRange(1, 300).Draw(t, "reads") {
			off, n := rapid.Int64Range(0, 1<<32).Draw(t, "off"), rapid.Int64Range(1, 1<<22).Draw(t, "n")
			last = max(last, off+n)
			if run := s.Read(off, n); run < 0 || run > last || len(s.list) > maxStreams {
				t.Fatalf("a run of %d after reads up to %d; %d streams", run, last, len(s.list))
			}
		}
	})
}
