package origin

import (
	"io"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"dcfs/fs/tree"
)

// data is the web seed (BEP 19): /data/VERSION/PATH. Padding is served as
// zeros.
func (s *service) data(w http.ResponseWriter, r *http.Request) {
	rel, rest := s.split(r)
	if rel == nil {
		http.NotFound(w, r)
		return
	}
	w = counting{w, &rel.webSeed}
	id, ok := rel.mi.Tree.Find(rest)
	if size, pad := padSize(rest); pad && !ok && size < rel.mi.Layout.Length {
		http.ServeContent(w, r, "", time.Time{}, io.NewSectionReader(zeros{}, 0, size))
		return
	}
	if !ok || rel.mi.Tree.Kind(id) != tree.File {
		http.NotFound(w, r)
		return
	}
	root, err := os.OpenRoot(s.shelf.lib.Data(rel.version))
	if err != nil {
		s.fail(w, err)
		return
	}
	defer root.Close()
	f, err := root.Open(rel.mi.Tree.Path(id))
	if err != nil {
		s.fail(w, err)
		return
	}
	defer f.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", time.Time{}, f)
}

// counting counts the bytes of an answer's body.
type counting struct {
	http.ResponseWriter
	sent *atomic.Int64
}

// Write implements io.Writer.
func (c counting) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.sent.Add(int64(n))
	return n, err
}

// ReadFrom lets the kernel send a file.
func (c counting) ReadFrom(r io.Reader) (int64, error) {
	n, err := io.Copy(c.ResponseWriter, r)
	c.sent.Add(n)
	return n, err
}

// split finds the release in a web seed's path, and what is left of the path.
func (s *service) split(r *http.Request) (*seeded, string) {
	p := r.PathValue("path")
	for _, rel := range s.shelf.all() {
		if rest, ok := strings.CutPrefix(p, rel.version+"/"); ok {
			return rel, rest
		}
	}
	return nil, ""
}

// padName is how the metainfo names padding: its size, and a number when there
// is more than one of that size.
var padName = regexp.MustCompile(`^\.pad_*/([0-9]{1,9})(\.[0-9]+)?$`)

func padSize(path string) (int64, bool) {
	m := padName.FindStringSubmatch(path)
	if m == nil {
		return 0, false
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	return n, err == nil
}

type zeros struct{}

func (zeros) ReadAt(p []byte, _ int64) (int, error) {
	clear(p)
	return len(p), nil
}
