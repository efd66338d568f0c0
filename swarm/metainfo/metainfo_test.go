package metainfo

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/anacrolix/torrent/bencode"

	"dcfs/fs/tree"
)

const pieceLength = tree.MinPieceLength

// stock is how a client that knows nothing of dcfs sees metainfo.
type stock struct {
	Announce     string     `bencode:"announce"`
	AnnounceList [][]string `bencode:"announce-list"`
	CreatedBy    string     `bencode:"created by"`
	Info         struct {
		Files []struct {
			Attr   string   `bencode:"attr"`
			Length int64    `bencode:"length"`
			Path   []string `bencode:"path"`
		} `bencode:"files"`
		Name        string `bencode:"name"`
		PieceLength int64  `bencode:"piece length"`
		Pieces      []byte `bencode:"pieces"`
		Private     int    `bencode:"private"`
	} `bencode:"info"`
	URLList []string `bencode:"url-list"`
}

func read(t *testing.T, b []byte) stock {
	t.Helper()
	var s stock
	if err := bencode.Unmarshal(b, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *stock) list() (out []string) {
	for _, f := range s.Info.Files {
		out = append(out, strings.Join(f.Path, "/")+" "+strconv.FormatInt(f.Length, 10)+" "+f.Attr)
	}
	return out
}

func build(t testing.TB, nodes ...tree.Node) *tree.Tree {
	t.Helper()
	tr, err := tree.Build(nodes, tree.Plan{PieceLength: pieceLength})
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func file(p string, size int64) tree.Node {
	return tree.Node{Path: p, Kind: tree.File, Mode: 0o644, Size: size, Sum: sha256.Sum256([]byte(p))}
}

func dir(p string) tree.Node { return tree.Node{Path: p, Kind: tree.Dir, Mode: 0o755} }

// params has hashes for every piece of tr, which nothing here looks into.
func params(tr *tree.Tree, name string) Params {
	n := int((tr.Total()-1)/tr.PieceLength()) + 1
	p := Params{Name: name, Trackers: []string{"http://10.0.0.1:7070/announce", "http://[::1]:7070/announce"}}
	for i := range n {
		h := sha1.Sum([]byte{byte(i), byte(i >> 8)})
		p.Pieces = append(p.Pieces, h[:]...)
	}
	p.WebSeeds = []string{"http://10.0.0.1:7070/data/app/"}
	p.Statement, p.Signature = []byte(`{"name":"app/1.0"}`), []byte("untrusted comment: x\n")
	return p
}

func create(t testing.TB, tr *tree.Tree, p Params) []byte {
	t.Helper()
	b, err := Create(tr, p)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// everything has padding twice of one length, empty files, links and a .pad of
// its own.
func everything(t testing.TB) *tree.Tree {
	tool := file("bin/tool", 5*pieceLength)
	tool.Mode = 0o755
	return build(t,
		dir("bin"), tool, file("bin/big", 4*pieceLength-9), dir(".pad"), file(".pad/7", 7),
		file("z", 10*pieceLength-8), file("zz", 20*pieceLength), file("a\xff", 1), file("none", 0), file("bin/none", 0),
		tree.Node{Path: "again", Kind: tree.File, Link: "bin/big"},
		tree.Node{Path: "zlink", Kind: tree.Symlink, Mode: 0o777, Target: "bin/tool"},
		tree.Node{Path: "emptydir", Kind: tree.Dir, Mode: 0o700},
	)
}

func TestCreateForStockClients(t *testing.T) {
	tr := everything(t)
	b := create(t, tr, params(tr, "app/1.0"))
	s := read(t, b)
	want := []string{
		"again 65527 ", "a\xff 1 ", ".pad_/8 8 p", "z 163832 ", ".pad_/8.2 8 p", "zz 327680 ", ".pad/7 7 ",
		".pad_/16377 16377 p", "bin/tool 81920 x", "none 0 ", "bin/none 0 ",
	}
	if got := s.list(); !slices.Equal(got, want) {
		t.Errorf("files\n%q, want\n%q", got, want)
	}
	if s.Info.Name != "1.0" || s.Info.PieceLength != pieceLength || s.Info.Private != 1 || s.CreatedBy != "dcfs" {
		t.Errorf("%+v", s)
	}
	if s.Announce != "http://10.0.0.1:7070/announce" || len(s.AnnounceList) != 2 || len(s.URLList) != 1 {
		t.Errorf("%+v", s)
	}
	var total int64
	for _, f := range s.Info.Files {
		total += f.Length
	}
	if total != tr.Total() || len(s.Info.Pieces) != 20*int((total-1)/pieceLength+1) {
		t.Errorf("%d bytes in %d bytes of hashes", total, len(s.Info.Pieces))
	}
	if again := create(t, everything(t), params(tr, "app/1.0")); !bytes.Equal(again, b) {
		t.Error("a second time gives something else")
	}
}

func TestReleaseWithoutPayload(t *testing.T) {
	tr := build(t, file("empty", 0))
	b := create(t, tr, params(tr, "v"))
	s := read(t, b)
	if got := s.list(); !slices.Equal(got, []string{".pad/1 1 p", "empty 0 "}) {
		t.Errorf("%q", got)
	}
	if _, err := Parse(b); err != nil {
		t.Error(err)
	}
}

func TestParseComesBack(t *testing.T) {
	tr := everything(t)
	p := params(tr, "app/1.0")
	b := create(t, tr, p)
	m, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	if m.InfoHash != sha1.Sum(m.Info) || m.InfoSHA256 != sha256.Sum256(m.Info) || !bytes.Contains(b, m.Info) {
		t.Error("the hashes are wrong")
	}
	if m.Name != p.Name || !slices.Equal(m.Trackers, p.Trackers) || !slices.Equal(m.WebSeeds, p.WebSeeds) ||
		!bytes.Equal(m.Statement, p.Statement) || !bytes.Equal(m.Signature, p.Signature) || !bytes.Equal(m.Pieces, p.Pieces) {
		t.Errorf("%+v", m)
	}
	if m.Layout.Total != tr.Total() || m.Layout.Length != pieceLength || m.Pieces.Hash(1) != sha1.Sum([]byte{1, 0}) {
		t.Errorf("%+v", m.Layout)
	}
	if !bytes.Equal(tree.Encode(m.Tree), tree.Encode(tr)) {
		t.Error("the tree is another")
	}
	if !bytes.Equal(m.Encode(), b) {
		t.Error("Encode differs from Create")
	}
	m.Trackers, m.WebSeeds, m.Statement, m.Signature = []string{"http://other/announce"}, nil, nil, nil
	back, err := Parse(m.Encode())
	if err != nil {
		t.Fatal(err)
	}
	if back.InfoHash != m.InfoHash || !slices.Equal(back.Trackers, m.Trackers) || back.WebSeeds != nil || back.Signature != nil {
		t.Errorf("%+v", back)
	}
	bare, err := ParseInfo(m.Info)
	if err != nil || bare.Name != "1.0" || bare.InfoHash != m.InfoHash || bare.Trackers != nil {
		t.Errorf("%+v, %v", bare, err)
	}
}

// remake returns metainfo whose info dictionary went through change.
func remake(t *testing.T, b []byte, change func(top, info map[string]any)) []byte {
	t.Helper()
	var top map[string]any
	if err := bencode.Unmarshal(b, &top); err != nil {
		t.Fatal(err)
	}
	change(top, top["info"].(map[string]any))
	out, err := bencode.Marshal(top)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestParseRefuses(t *testing.T) {
	tr := everything(t)
	b := create(t, tr, params(tr, "app/1.0"))
	first := func(info map[string]any) map[string]any { return info["files"].([]any)[0].(map[string]any) }
	for name, c := range map[string]struct {
		change func(top, info map[string]any)
		want   string
	}{
		"other tool":     {func(_, info map[string]any) { delete(info, "dcfs") }, "another tool"},
		"no info":        {func(top, _ map[string]any) { delete(top, "info") }, "no info"},
		"public":         {func(_, info map[string]any) { delete(info, "private") }, "private"},
		"private 0":      {func(_, info map[string]any) { info["private"] = 0 }, "private"},
		"piece length":   {func(_, info map[string]any) { info["piece length"] = 2 * pieceLength }, "piece length"},
		"short pieces":   {func(_, info map[string]any) { info["pieces"] = info["pieces"].(string)[20:] }, "piece hashes"},
		"odd pieces":     {func(_, info map[string]any) { info["pieces"] = info["pieces"].(string) + "x" }, "piece hashes"},
		"no pieces":      {func(_, info map[string]any) { delete(info, "pieces") }, "piece hashes"},
		"version":        {func(_, info map[string]any) { info["dcfs"].(map[string]any)["version"] = 2 }, "version"},
		"tree":           {func(_, info map[string]any) { info["dcfs"].(map[string]any)["tree"] = "dcfstree\x01" }, "tree"},
		"tree key":       {func(_, info map[string]any) { info["dcfs"].(map[string]any)["more"] = 2 }, "keys"},
		"another length": {func(_, info map[string]any) { first(info)["length"] = 2 }, "list of files"},
		"another path":   {func(_, info map[string]any) { first(info)["path"] = []any{".."} }, "list of files"},
		"another attr":   {func(_, info map[string]any) { first(info)["attr"] = "x" }, "list of files"},
		"no files":       {func(_, info map[string]any) { delete(info, "files") }, "list of files"},
		"single file":    {func(_, info map[string]any) { info["length"] = 5 }, "keys"},
		"inner name":     {func(_, info map[string]any) { info["name"] = ".." }, "starts with a dot"},
		"inner slash":    {func(_, info map[string]any) { info["name"] = "a/1.0" }, "has a"},
		"outer name":     {func(top, _ map[string]any) { top["dcfs"].(map[string]any)["name"] = "app/2.0" }, "named"},
		"outer dots":     {func(top, _ map[string]any) { top["dcfs"].(map[string]any)["name"] = "../1.0" }, "starts with a dot"},
		"tracker":        {func(top, _ map[string]any) { top["announce-list"] = []any{[]any{"nonsense"}} }, "URL"},
		"tracker number": {func(top, _ map[string]any) { top["announce-list"] = 5 }, "announce-list"},
		"long statement": {func(top, _ map[string]any) {
			top["dcfs"].(map[string]any)["statement"] = strings.Repeat("x", 1<<20)
		}, "statement"},
		"many seeds": {func(top, _ map[string]any) {
			top["url-list"] = strings.Split(strings.Repeat("http://x/ ", 100), " ")
		}, "more than"},
		"deep": {func(top, _ map[string]any) {
			deep := any(1)
			for range 10 {
				deep = []any{deep}
			}
			top["zzz"] = deep
		}, "deeper"},
	} {
		m, err := Parse(remake(t, b, c.change))
		if m != nil || !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	same := remake(t, b, func(_, _ map[string]any) {})
	if !bytes.Equal(same, b) {
		t.Error("what Create writes is not canonical")
	}
	tolerant := remake(t, b, func(top, _ map[string]any) {
		top["comment"], top["url-list"] = "hello", "http://one/"
		delete(top, "announce-list")
		delete(top, "dcfs")
	})
	if m, err := Parse(tolerant); err != nil || m.Name != "1.0" || len(m.WebSeeds) != 1 || len(m.Trackers) != 1 {
		t.Errorf("%v: %v", m, err)
	}
}

func TestCreateRefuses(t *testing.T) {
	tr := build(t, file("a", 1))
	good := params(tr, "v")
	for name, change := range map[string]func(*Params){
		"name":      func(p *Params) { p.Name = "a//b" },
		"pieces":    func(p *Params) { p.Pieces = p.Pieces[1:] },
		"tracker":   func(p *Params) { p.Trackers = []string{"host:7070"} },
		"web seeds": func(p *Params) { p.WebSeeds = slices.Repeat(p.WebSeeds, 65) },
		"signature": func(p *Params) { p.Signature = make([]byte, maxSigned+1) },
	} {
		p := good
		change(&p)
		if b, err := Create(tr, p); b != nil || !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestValidName(t *testing.T) {
	for _, s := range []string{"v1", "app/1.0", "a/b/c+d_e-F.9", "-x"} {
		if err := ValidName(s); err != nil {
			t.Error(err)
		}
	}
	for _, s := range []string{"", "/", "a/", "/a", "a//b", ".", "..", "a/..", "a/.b", "a b", "ü", "a\x00", "a\n", strings.Repeat("a", 256), strings.Repeat("a/", 400) + "a"} {
		if err := ValidName(s); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %v", s, err)
		}
	}
}
