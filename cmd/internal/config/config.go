// Package config reads the configuration file of a host and the texts that
// flags, environment and file share: sizes, rates, addresses.
//
// It is one layer of one validated configuration: a flag wins over the
// environment, that over the file, the file over the default. The package must
// never know the defaults, read the environment, or take a key it does not
// know for a comment.
package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"dcfs/swarm/gate"
)

// ErrConfig is wrapped by every error about a configuration that cannot be
// used.
var ErrConfig = errors.New("bad configuration")

// DefaultPath is the configuration file that is read when none is named.
const DefaultPath = "/etc/dcfs/dcfs.yaml"

// maxFile bounds a configuration file in bytes.
const maxFile = 1 << 20

// File is what a configuration file says. A nil field was not in the file.
// Sizes are in bytes, rates in bytes a second with 0 for no limit. A File does
// not change and is safe for concurrent use.
type File struct {
	Origin           *[]string // base URLs
	State            *string   // absolute paths
	Run              *string
	Trusted          *string
	PublishTokenFile *string
	TraceTokenFile   *string

	Cache    *int64
	Up       *int64
	Down     *int64
	HostUp   *int64
	HostDown *int64
	MaxPeers *int

	Listen     *string // HOST:PORT
	PeerListen *string
	Rack       *string
	PeerTLS    *string // a directory
	PeerAllow  *gate.Networks
	WebSeed    *[]string // URLs of directories, or NoWebSeed

	Linger      *time.Duration
	LingerMax   *time.Duration
	ReadTimeout *time.Duration
	Wait        *time.Duration
	AtEnd       *string
	LogLevel    *string
	LogFormat   *string

	text map[string]string
}

// Lookup returns the value of a setting by the long name of its flag, as text
// that the flag takes, and whether the file has it. The elements of a list are
// joined with commas.
func (f File) Lookup(flag string) (string, bool) {
	text, ok := f.text[flag]
	return text, ok
}

// Load reads the configuration file at path. A missing file is an empty one
// unless it is required, because somebody named it. Errors wrap ErrConfig and
// name the file, the line and the key.
func Load(path string, required bool) (File, error) {
	data, err := readFile(path)
	if errors.Is(err, os.ErrNotExist) && !required {
		return File{}, nil
	}
	if errors.Is(err, os.ErrNotExist) {
		return File{}, fmt.Errorf("%w: %s is not there: write it, or name another file with --config", ErrConfig, path)
	}
	if err != nil {
		return File{}, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	f, err := parse(data)
	if err != nil {
		return File{}, fmt.Errorf("%w: %s: %w", ErrConfig, path, err)
	}
	return f, nil
}

// readFile reads a regular file within the bound, and never waits for a FIFO.
func readFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(fmt.Errorf("%s is no regular file", path), err)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s has more than %d bytes", path, maxFile)
	}
	return data, err
}
