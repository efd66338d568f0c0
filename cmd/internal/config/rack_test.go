package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReadRack(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return "@" + path
	}
	for _, test := range []struct{ in, want, fails string }{
		{"", "", ""},
		{"a7", "a7", ""},
		{"a 7", "", "no name of a rack"},
		{strings.Repeat("x", 65), "", "no name of a rack"},
		{"@etc/rack", "", "no absolute path"},
		{"@" + dir + "/none", "", "no such file"},
		{"@" + dir, "", "cannot be read"},
		{file("good", " row3-a7 \nmore\n"), "row3-a7", ""},
		{file("bare", "a7"), "a7", ""},
		{file("blank", "\na7\n"), "", "no name of a rack"},
		{file("long", strings.Repeat("x", 5000)), "", "no name of a rack"},
	} {
		got, err := ReadRack(test.in)
		if got != test.want || (err == nil) != (test.fails == "") || err != nil && !strings.Contains(err.Error(), test.fails) {
			t.Errorf("%.20q: %q, %v; want %q, %q", test.in, got, err, test.want, test.fails)
		}
	}
}
