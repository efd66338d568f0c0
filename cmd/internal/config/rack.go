package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

const (
	maxRack     = 64
	maxRackFile = 4096
)

// rack is what --rack takes: a name, or @FILE.
func rack(s string) (string, error) {
	if file, is := strings.CutPrefix(s, "@"); is {
		if !filepath.IsAbs(file) {
			return "", fmt.Errorf("%.80q is no absolute path to a file with the rack's name", s)
		}
		return s, nil
	}
	return rackName(s)
}

func rackName(s string) (string, error) {
	if s == "" || len(s) > maxRack || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fmt.Errorf("%.80q is no name of a rack: want up to %d printable ASCII characters without blanks", s, maxRack)
	}
	return s, nil
}

// ReadRack returns the name of the rack that s says: itself, or for @FILE the
// first line of that file. "" stays.
func ReadRack(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	s, err := rack(s)
	if err != nil || s[0] != '@' {
		return s, err
	}
	f, err := os.Open(s[1:])
	if err != nil {
		return "", fmt.Errorf("the rack's name cannot be read: %w", err)
	}
	defer f.Close()
	text := make([]byte, maxRackFile)
	n, err := io.ReadFull(f, text)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return "", fmt.Errorf("the rack's name cannot be read: %w", err)
	}
	first, _, _ := strings.Cut(string(text[:n]), "\n")
	name, err := rackName(strings.TrimSpace(first))
	if err != nil {
		return "", fmt.Errorf("%s: %w", s[1:], err)
	}
	return name, nil
}
