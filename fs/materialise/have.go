package materialise

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"dcfs/fs/durable"
)

// The file have: magic, info-hash, length of the bitfield (8 bytes, big
// endian), the bitfield, SHA-256 of all that.
const (
	haveMagic  = "dcfshav1"
	haveHeader = len(haveMagic) + 20 + 8
	maxHave    = 64 << 20 // half a billion pieces; more is damage
)

// SaveHave makes all data durable that WriteAt took before the call, and then
// bitfield (BEP 3 order): what it claims is on the disk when LoadHave returns
// it. Make the bitfield before the call, of pieces that were written whole.
//
//	syncfs(STAGE)
//	write, fsync, rename STAGE/have; fsync(STAGE)   durable.Dir.WriteFile
func (s *Stage) SaveHave(bitfield []byte) error {
	s.steps.Lock()
	defer s.steps.Unlock()
	if s.renamed || s.gone {
		return nil // the receipt says more than any bitfield
	}
	if err := s.syncFS(); err != nil {
		return fmt.Errorf("saving the progress of %s: %w", s.dest, err)
	}
	if err := s.dir.WriteFile("have", encodeHave(s.cfg.InfoHash, bitfield), 0o600); err != nil {
		return fmt.Errorf("saving the progress of %s: %w", s.dest, err)
	}
	s.have = bytes.Clone(bitfield)
	return nil
}

// LoadHave returns the bitfield that was saved last, by this Stage or before
// it was opened, and false when there is none.
func (s *Stage) LoadHave() ([]byte, bool) {
	s.steps.Lock()
	defer s.steps.Unlock()
	if s.renamed || s.gone {
		return nil, false
	}
	return s.have, s.have != nil
}

func encodeHave(of [20]byte, bitfield []byte) []byte {
	out := append(make([]byte, 0, haveHeader+len(bitfield)+sha256.Size), haveMagic...)
	out = append(out, of[:]...)
	out = binary.BigEndian.AppendUint64(out, uint64(len(bitfield)))
	out = append(out, bitfield...)
	sum := sha256.Sum256(out)
	return append(out, sum[:]...)
}

func decodeHave(b []byte) (of [20]byte, bitfield []byte, err error) {
	if len(b) < haveHeader+sha256.Size || !bytes.HasPrefix(b, []byte(haveMagic)) {
		return of, nil, errors.New("no record of progress")
	}
	body, sum := b[:len(b)-sha256.Size], sha256.Sum256(b[:len(b)-sha256.Size])
	if !bytes.Equal(sum[:], b[len(body):]) {
		return of, nil, errors.New("the checksum is wrong")
	}
	copy(of[:], body[len(haveMagic):])
	if binary.BigEndian.Uint64(body[haveHeader-8:]) != uint64(len(body)-haveHeader) {
		return of, nil, errors.New("the length is wrong")
	}
	return of, body[haveHeader:], nil
}

// readHave returns the bitfield that is recorded in dir for the release of,
// and nil when there is none, it is another release's or damaged. A record that
// cannot be read now is an error: it may claim what must not be thrown away.
func readHave(dir *durable.Dir, of [20]byte) ([]byte, error) {
	f, err := dir.Open("have", os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ELOOP) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxHave))
	if err != nil {
		return nil, err
	}
	release, bitfield, err := decodeHave(b)
	if err != nil || release != of {
		return nil, nil
	}
	return bitfield, nil
}
