package durable

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

// TestRecord: what was written last counts, whatever becomes of the other half,
// and the file stays where it is as long as the data fits.
func TestRecord(t *testing.T) {
	path := t.TempDir() + "/r"
	read := func(want string) {
		t.Helper()
		if got, err := (Disk{}).ReadRecord(path); err != nil || string(got) != want {
			t.Errorf("it has %.40q (%d bytes), %v, want %.40q", got, len(got), err, want)
		}
	}
	write := func(data string) os.FileInfo {
		t.Helper()
		if err := (Disk{}).WriteRecord(path, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
		read(data)
		fi, err := os.Stat(path)
		if err != nil || fi.Mode() != 0o644 {
			t.Fatalf("%v, %v", fi, err)
		}
		return fi
	}
	if err := os.WriteFile(path, []byte("a plain file"), 0o600); err != nil {
		t.Fatal(err)
	}
	read("a plain file")
	first := write("one")
	for _, data := range []string{"two", "", strings.Repeat("x", 3900), "three\n"} {
		if !os.SameFile(first, write(data)) {
			t.Errorf("%.20q made a new file", data)
		}
	}
	if long := write(strings.Repeat("y", 5000)); os.SameFile(first, long) || long.Size() != 2*12288 {
		t.Errorf("it has %d bytes", long.Size())
	}
	write("")
}

// TestRecordTorn: a half of which any prefix is new and the rest old, or zeros,
// counts only when it is whole.
func TestRecordTorn(t *testing.T) {
	path := t.TempDir() + "/r"
	var images [][]byte
	for _, data := range []string{"one", "two", "three"} {
		if err := (Disk{}).WriteRecord(path, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		images = append(images, b)
	}
	was, now := images[1], images[2] // in the first half
	end := bytes.LastIndex(now[:recordUnit], []byte("three")) + len("three")
	for _, rest := range [][]byte{was, make([]byte, len(was))} {
		for cut := range end + 1 {
			torn := append(bytes.Clone(now[:cut]), rest[cut:recordUnit]...)
			torn = append(torn, was[recordUnit:]...)
			if err := os.WriteFile(path, torn, 0o644); err != nil {
				t.Fatal(err)
			}
			want := map[bool]string{true: "three", false: "two"}[cut == end]
			if got, err := (Disk{}).ReadRecord(path); err != nil || string(got) != want {
				t.Fatalf("torn after %d of %d bytes it has %q, %v, want %q", cut, end, got, err, want)
			}
		}
	}
}
