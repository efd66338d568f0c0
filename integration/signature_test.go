package integration

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dcfs/integration/lab"
)

// field returns where the value of a string field lies in a torrent.
func field(t *testing.T, b []byte, name string) (start, end int) {
	t.Helper()
	key := fmt.Appendf(nil, "%d:%s", len(name), name)
	at := bytes.Index(b, key)
	if at < 0 || bytes.Count(b, key) != 1 {
		t.Fatalf("%d fields %s in the torrent", bytes.Count(b, key), name)
	}
	var length int
	start = at + len(key)
	if _, err := fmt.Sscanf(string(b[start:min(start+20, len(b))]), "%d:", &length); err != nil {
		t.Fatal(err)
	}
	start += bytes.IndexByte(b[start:], ':') + 1
	return start, start + length
}

// signedTorrent is one in its parts.
type signedTorrent struct{ name, statement, signature, info string }

// takeApart knows the form that dcfs writes: the info dictionary is the last
// but for url-list, and neither has the key of the other.
func takeApart(t *testing.T, torrent string) signedTorrent {
	t.Helper()
	b, err := os.ReadFile(torrent)
	must(t, err)
	from, to := field(t, b, "statement")
	out := signedTorrent{statement: string(b[from:to])}
	from, to = field(t, b, "signature")
	out.signature = string(b[from:to])
	var says struct {
		Name string `json:"name"`
	}
	must(t, json.Unmarshal([]byte(out.statement), &says))
	out.name = says.Name
	_, to = field(t, b, "statement")
	rest := b[to:]
	info := bytes.TrimPrefix(rest, []byte("e4:info"))
	if len(info) == len(rest) {
		t.Fatalf("no info dictionary behind the statement: %.60q", rest)
	}
	if end := bytes.Index(info, []byte("8:url-list")); end >= 0 {
		info = info[:end+1]
	}
	out.info = string(info[:len(info)-1])
	return out
}

func (s signedTorrent) encode(tracker string) []byte {
	str := func(v string) string { return fmt.Sprintf("%d:%s", len(v), v) }
	own := "4:name" + str(s.name)
	if s.signature != "" {
		own += "9:signature" + str(s.signature)
	}
	if s.statement != "" {
		own += "9:statement" + str(s.statement)
	}
	return []byte("d8:announce" + str(tracker) + "4:dcfsd" + own + "e4:info" + s.info + "e")
}

// sign has Debian's minisign sign a statement.
func (s signedTorrent) sign(t *testing.T, key, statement string) signedTorrent {
	t.Helper()
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "m"), []byte(statement), 0o600))
	tool(t, dir, "minisign", "-S", "-s", key, "-m", "m", "-x", "sig")
	signature, err := os.ReadFile(filepath.Join(dir, "sig"))
	must(t, err)
	s.statement, s.signature = statement, string(signature)
	return s
}

func (s signedTorrent) stated(name, created, expires string) string {
	more := ""
	if expires != "" {
		more = `,"expires":"` + expires + `"`
	}
	return fmt.Sprintf(`{"schema":1,"name":%q,"infohash":"%x","info_sha256":"%x","created":%q%s}`,
		name, sha1.Sum([]byte(s.info)), sha256.Sum256([]byte(s.info)), created, more)
}

// flipIn changes one bit in the middle of a text.
func flipIn(s string, at int) string {
	b := []byte(s)
	b[at] ^= 1
	return string(b)
}

// evilOrigin answers as its handler likes, inside a host.
func evilOrigin(t *testing.T, h *lab.Host, handler http.HandlerFunc) (url string) {
	t.Helper()
	ln, err := h.Listen("tcp", h.Addr+":0")
	must(t, err)
	server := &http.Server{Handler: handler}
	done := make(chan struct{})
	go func() { defer close(done); server.Serve(ln) }()
	t.Cleanup(func() { server.Close(); <-done })
	return "http://" + ln.Addr().String()
}

// refused has a release fetched and mounted: both must end with one of the
// codes, say each of the words, and leave nothing.
func refused(t *testing.T, n *node, codes []int, words []string, release string, more ...string) {
	t.Helper()
	dest, mnt := filepath.Join(n.Releases(), "refused"), filepath.Join(n.Mnt(), "refused")
	must(t, os.MkdirAll(mnt, 0o755))
	for _, args := range [][]string{{"fetch", release, dest}, {"mount", release, mnt, "--dest", dest}} {
		r := n.dcfs(append(append(args, "--linger", "0s"), more...)...)
		ok := false
		for _, code := range codes {
			ok = ok || r.code == code
		}
		if !ok {
			t.Errorf("want exit %v\n%.3000v", codes, r)
		}
		for _, w := range words {
			if !strings.Contains(r.stderr, w) {
				t.Errorf("stderr does not say %q\n%.3000v", w, r)
			}
		}
	}
	if left := n.MountsBelow(n.Dir); len(left) > 0 {
		t.Errorf("mounted: %v", left)
	}
	for _, dir := range []string{n.Releases(), n.Mnt(), n.State(), n.Run()} {
		out := tool(t, dir, "find", ".", "-mindepth", "1", "!", "-type", "d")
		if names, err := os.ReadDir(n.Releases()); out != "" || err != nil || len(names) > 0 {
			t.Errorf("left behind in %s: %s %v %v", dir, out, names, err)
		}
	}
}

// TestSignature offers a node what is wrong in one thing each, as a file and by
// an origin that means harm.
func TestSignature(t *testing.T) {
	lab.Require(t, lab.Root, lab.FUSE, lab.Tool("minisign"))
	l := lab.New(t, "origin", "evil", "a")
	o := newOrigin(t, l.Host("origin"))
	stranger := filepath.Join(o.Dir, "stranger")
	o.ok("key", "generate", stranger)
	release := o.publish(sampleTree(t, 10, 1, 1<<20), "app/web-1", "--expires", "720h")
	good := takeApart(t, release.file)
	signer := o.key + ".key"
	now := time.Now().UTC()
	at := func(d time.Duration) string { return now.Add(d).Format("2006-01-02T15:04:05Z") }
	if good.statement != good.stated("app/web-1", statedTime(t, good, "created"), statedTime(t, good, "expires")) {
		t.Errorf("the statement is %s", good.statement)
	}
	with := func(change func(s *signedTorrent)) signedTorrent { s := good; change(&s); return s }
	evil := map[string][]byte{}
	url := evilOrigin(t, l.Host("evil"), func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimSuffix(strings.TrimPrefix(r.URL.Path, "/v1/releases/"), ".torrent")
		if b, ok := evil[name]; ok {
			w.Write(b)
			return
		}
		http.NotFound(w, r)
	})
	n := o.newNode(l.Host("a"))
	for name, c := range map[string]struct {
		torrent signedTorrent
		says    string
	}{
		"no signature":      {with(func(s *signedTorrent) { s.statement, s.signature = "", "" }), "no signature"},
		"no statement":      {with(func(s *signedTorrent) { s.statement = "" }), "tampered"},
		"signature cut off": {with(func(s *signedTorrent) { s.signature = "" }), "signature"},
		"unknown key":       {good.sign(t, stranger+".key", good.statement), "is not in"},
		"info flipped":      {with(func(s *signedTorrent) { s.info = flipIn(s.info, strings.Index(s.info, "6:pieces")+20) }), "tampered"},
		"tree flipped":      {with(func(s *signedTorrent) { s.info = flipIn(s.info, 60) }), ""},
		"statement flipped": {with(func(s *signedTorrent) { s.statement = flipIn(s.statement, strings.Index(s.statement, "web-1")+4) }), "tampered"},
		"signature flipped": {with(func(s *signedTorrent) { s.signature = flipIn(s.signature, strings.Index(s.signature, "\n")+30) }), ""},
		"comment flipped": {with(func(s *signedTorrent) {
			s.signature = flipIn(s.signature, strings.Index(s.signature, "dcfs release")+2)
		}), "tampered"},
		"renamed":              {with(func(s *signedTorrent) { s.name = "other/web-1" }), "signed as the release app/web-1"},
		"renamed inside":       {with(func(s *signedTorrent) { s.name = "app/web-2" }), "named"},
		"expired":              {good.sign(t, signer, good.stated("app/web-1", at(-48*time.Hour), at(-time.Second))), "expired"},
		"from the future":      {good.sign(t, signer, good.stated("app/web-1", at(time.Hour), "")), "not valid yet"},
		"expires before birth": {good.sign(t, signer, good.stated("app/web-1", at(0), at(-time.Hour))), "expires"},
		"spaces in statement":  {good.sign(t, signer, good.statement+" "), "canonical"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "x.torrent")
			evil[good.name] = c.torrent.encode(o.url() + "/announce")
			must(t, os.WriteFile(file, evil[good.name], 0o644))
			refused(t, n, []int{65}, []string{c.says}, file)
			refused(t, n, []int{65}, []string{c.says}, good.name, "--origin", url)
			delete(evil, good.name)
		})
	}
	t.Run("served under another name", func(t *testing.T) {
		evil["app/web-2"] = good.encode(o.url() + "/announce")
		refused(t, n, []int{65}, []string{"app/web-2", "app/web-1"}, "app/web-2", "--origin", url)
	})
	t.Run("nothing changed", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "x.torrent")
		must(t, os.WriteFile(file, good.encode(o.url()+"/announce"), 0o644))
		n.ok("fetch", file, filepath.Join(n.Releases(), "good"), "--linger", "0s")
	})
}

func statedTime(t *testing.T, s signedTorrent, name string) string {
	t.Helper()
	var all map[string]any
	must(t, json.Unmarshal([]byte(s.statement), &all))
	text, _ := all[name].(string)
	if _, err := time.Parse(time.RFC3339, text); err != nil {
		t.Errorf("%s in %s: %v", name, s.statement, err)
	}
	return text
}

// TestKeyRotation: two keys are trusted for a while, then the old one is not.
func TestKeyRotation(t *testing.T) {
	lab.Require(t, lab.Root, lab.Tool("minisign"))
	l := lab.New(t, "origin", "a")
	o := newOrigin(t, l.Host("origin"))
	n := o.newNode(l.Host("a"))
	dir := sampleTree(t, 5, 0, 0)
	old := o.publish(dir, "old")
	next := filepath.Join(o.Dir, "next")
	tool(t, o.Dir, "minisign", "-G", "-W", "-p", next+".pub", "-s", next+".key")
	o.key = next
	o.trust(next + ".pub")
	now := o.publish(dir, "new")

	dest := func(name string) string { return filepath.Join(n.Releases(), name) }
	n.ok("fetch", old.Version, dest("old"), "--origin", o.url(), "--linger", "0s")
	n.fails(65, []string{"is not in", n.trusted()}, "fetch", now.Version, dest("new"), "--origin", o.url(), "--linger", "0s")
	n.trust(next + ".pub")
	n.ok("fetch", now.Version, dest("new"), "--origin", o.url(), "--linger", "0s")
	n.ok("verify", old.file, dest("old"))
	must(t, os.Remove(filepath.Join(n.trusted(), "release.pub")))
	n.fails(65, []string{"is not in"}, "fetch", old.Version, dest("old-2"), "--origin", o.url(), "--linger", "0s")
	n.fails(65, []string{"is not in"}, "verify", "old", dest("old")) // by what the host has kept
	n.ok("fetch", now.Version, dest("new-2"), "--origin", o.url(), "--linger", "0s")
}

// TestVerifyByHand follows docs/releases.md: its Python takes a torrent apart
// and Debian's minisign verifies it.
func TestVerifyByHand(t *testing.T) {
	lab.Require(t, lab.Root, lab.Tool("minisign"), lab.Tool("python3"))
	doc, err := os.ReadFile(filepath.Join(moduleRoot, "docs/releases.md"))
	must(t, err)
	_, script, ok := strings.Cut(string(doc), "```python\n")
	script, _, ok2 := strings.Cut(script, "```")
	if !ok || !ok2 {
		t.Fatal("docs/releases.md has no Python any more")
	}
	l := lab.New(t, "origin")
	o := newOrigin(t, l.Host("origin"))
	release := o.publish(sampleTree(t, 10, 1, 1<<20), "app/web-1")
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "apart.py"), []byte(script), 0o644))
	resp, err := o.Client().Get(o.url() + "/v1/releases/app/web-1.torrent")
	must(t, err)
	defer resp.Body.Close()
	torrent, err := io.ReadAll(resp.Body)
	must(t, err)
	published, err := os.ReadFile(release.file)
	must(t, err)
	for name, b := range map[string][]byte{"from the origin": torrent, "from --out": published} {
		must(t, os.WriteFile(filepath.Join(dir, "x.torrent"), b, 0o644))
		if out := tool(t, dir, "python3", "apart.py", "x.torrent"); strings.TrimSpace(out) != "app/web-1" {
			t.Errorf("%s: it says %q", name, out)
		}
		if out := tool(t, dir, "minisign", "-V", "-p", o.key+".pub", "-m", "statement"); !strings.Contains(out, "dcfs release app/web-1") {
			t.Errorf("%s: minisign says %s", name, out)
		}
	}
}
