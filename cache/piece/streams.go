package piece

// maxStreams bounds how many reads are remembered for what may follow them.
const maxStreams = 128

// slack is how far a read may lie from the end of the one before it and still go
// on from there: padding lies between, and reads made at once come in any order.
// It grows with what was read in order, up to maxSlack.
const (
	minSlack = 64 << 10
	maxSlack = 1 << 20
)

// Streams tells reads that go on where others ended from reads that stand alone,
// and says how much is worth fetching behind them. A program that reads a file
// in order is a stream, and so is a scan of small files in the order in which
// they lie. The zero Streams knows of no reads. It is not safe for concurrent
// use.
type Streams struct {
	list []stream // the last used at the end
}

// stream is a run of reads of which each went on from another.
type stream struct {
	end int64 // of the farthest read
	run int64 // bytes that came behind the first read
}

// Read notes a read of n bytes from off. It returns for how many bytes reads
// have gone on from each other up to this one: 0 for a read that stands alone,
// as the first of a stream does.
func (s *Streams) Read(off, n int64) (run int64) {
	for i := len(s.list) - 1; i >= 0; i-- {
		at := s.list[i]
		slack := min(max(minSlack, at.run), maxSlack)
		if off+n < at.end-slack || off > at.end+slack {
			continue
		}
		if end := off + n; end > at.end {
			at.end, at.run = end, at.run+end-at.end
		}
		copy(s.list[i:], s.list[i+1:])
		s.list[len(s.list)-1] = at
		return at.run
	}
	if len(s.list) == maxStreams {
		s.list = append(s.list[:0], s.list[1:]...)
	}
	s.list = append(s.list, stream{end: off + n})
	return 0
}
