package service

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// maxText bounds what is read of a stored text: a kilobyte for each of the
// processes that change it.
const maxText = 16 << 20

const (
	textName = "dcfs-text"
	fileName = "dcfs-%d-of-%d"
)

// Store is the service manager's store of descriptors (FileDescriptorStoreMax=):
// what is in it is there again when the service is restarted after its processes
// died. It is not safe for concurrent use.
//
// A text is kept in a memory file, which is changed in place: each text is
// appended, with a NUL behind it, and the last whole one counts.
type Store struct {
	log   *slog.Logger
	text  *os.File // nil before the first Keep
	last  []byte
	end   int64 // behind the last whole text
	files int
}

// OpenStore returns the store, what is in it, and nothing of what was left
// there but is not whole. The store is nil when the manager keeps nothing. A
// manager before systemd 254 does not say that it keeps something; the unit
// says it then, with Environment=FDSTORE=8.
func OpenStore(log *slog.Logger) (s *Store, text []byte, files []*os.File) {
	left := activation.Files(true)
	if n, err := strconv.Atoi(os.Getenv("FDSTORE")); err != nil || n <= 0 || os.Getenv("NOTIFY_SOCKET") == "" {
		closeAll(left)
		return nil, nil, nil
	}
	s = &Store{log: log}
	text, files, err := s.find(left)
	if err != nil {
		log.Warn("what a former process left with the service manager is of no use", "cause", err)
		for _, f := range left {
			s.remove(f.Name())
		}
		closeAll(left)
		return &Store{log: log}, nil, nil
	}
	return s, text, files
}

// find takes what was stored.
func (s *Store) find(left []*os.File) (text []byte, files []*os.File, err error) {
	if len(left) == 0 {
		return nil, nil, nil
	}
	files = make([]*os.File, len(left)-1)
	for _, f := range left {
		var i, of int
		_, err := fmt.Sscanf(f.Name(), fileName, &i, &of)
		switch {
		case f.Name() == textName:
			s.text = f
		case err == nil && of == len(files) && i >= 0 && i < of:
			files[i] = f
		default:
			return nil, nil, fmt.Errorf("%s: it is not one of %d", f.Name(), len(files))
		}
	}
	for _, f := range files {
		if f == nil {
			return nil, nil, errors.New("a file is missing")
		}
	}
	if s.text == nil {
		return nil, nil, errors.New("the text is missing")
	}
	s.files = len(files)
	err = s.read()
	return s.last, files, err
}

// read finds the last whole text.
func (s *Store) read() error {
	st, err := s.text.Stat()
	if err != nil {
		return err
	}
	if st.Size() > maxText {
		return fmt.Errorf("a text of %d bytes", st.Size())
	}
	buf := make([]byte, st.Size())
	n, err := s.text.ReadAt(buf, 0)
	if err != nil {
		return err
	}
	whole := bytes.LastIndexByte(buf[:n], 0)
	if whole < 0 {
		return errors.New("the text is not whole")
	}
	s.end = int64(whole) + 1
	s.last = bytes.Clone(buf[bytes.LastIndexByte(buf[:whole], 0)+1 : whole])
	return nil
}

// Keep puts a text, which must hold no NUL, and the files into the store. The
// files are the same each time; only the text changes.
func (s *Store) Keep(text []byte, files []*os.File) error {
	if s.text != nil {
		return s.add(text)
	}
	if err := s.begin(text, files); err != nil {
		s.Clear() // the next one begins anew
		return fmt.Errorf("the service manager's store: %w", err)
	}
	return nil
}

// begin hands everything over. The first of the files comes last: without it
// the rest is of no use, and as long as it is there all is.
func (s *Store) begin(text []byte, files []*os.File) error {
	fd, err := unix.MemfdCreate(textName, unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	s.text, s.files = os.NewFile(uintptr(fd), textName), len(files)
	if err := s.add(text); err != nil {
		return err
	}
	if err := send(s.text, textName); err != nil {
		return err
	}
	for i, f := range slices.Backward(files) {
		if err := send(f, fmt.Sprintf(fileName, i, len(files))); err != nil {
			return err
		}
	}
	return nil
}

// add appends a text, unless it says nothing new.
func (s *Store) add(text []byte) error {
	if s.end > 0 && bytes.Equal(text, s.last) {
		return nil
	}
	n, err := s.text.WriteAt(append(bytes.Clone(text), 0), s.end)
	if err != nil {
		return fmt.Errorf("the service manager's store: %w", err)
	}
	s.last, s.end = bytes.Clone(text), s.end+int64(n)
	return nil
}

// send puts one file into the store. FDPOLL=0: not every file can be polled.
func send(f *os.File, name string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	to := &unix.SockaddrUnix{Name: os.Getenv("NOTIFY_SOCKET")}
	return unix.Sendmsg(fd, []byte("FDSTORE=1\nFDPOLL=0\nFDNAME="+name), unix.UnixRights(int(f.Fd())), to, 0)
}

// Replace is Keep for a process that does not know what of the same files is in
// the store: it has become another program.
func (s *Store) Replace(text []byte, files []*os.File) error {
	if s == nil {
		return nil
	}
	s.files = len(files)
	s.Clear()
	return s.Keep(text, files)
}

// Clear takes everything out of the store.
func (s *Store) Clear() {
	if s == nil {
		return
	}
	for i := range s.files {
		s.remove(fmt.Sprintf(fileName, i, s.files))
	}
	s.remove(textName)
	if s.text != nil {
		s.text.Close()
	}
	s.text, s.last, s.end, s.files = nil, nil, 0, 0
}

func (s *Store) remove(name string) {
	if _, err := daemon.SdNotify(false, "FDSTOREREMOVE=1\nFDNAME="+name); err != nil {
		s.log.Debug("the service manager does not listen", "cause", err)
	}
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
