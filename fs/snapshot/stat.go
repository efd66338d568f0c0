package snapshot

import (
	"io/fs"
	"syscall"
	"time"
)

// stat is what fstat says of an open file, as fs.FileInfo.
type stat struct {
	name string
	st   syscall.Stat_t
}

func (s *stat) Name() string       { return s.name }
func (s *stat) Size() int64        { return s.st.Size }
func (s *stat) ModTime() time.Time { return time.Unix(s.st.Mtim.Unix()) }
func (s *stat) IsDir() bool        { return s.Mode().IsDir() }
func (s *stat) Sys() any           { return &s.st }

// Mode returns the permissions and, for what is no regular file, some type
// that says so.
func (s *stat) Mode() fs.FileMode {
	mode := fs.FileMode(s.st.Mode & 0o777)
	switch s.st.Mode & syscall.S_IFMT {
	case syscall.S_IFREG:
		return mode
	case syscall.S_IFDIR:
		return mode | fs.ModeDir
	}
	return mode | fs.ModeIrregular
}
