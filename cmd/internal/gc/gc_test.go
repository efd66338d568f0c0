package gc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"dcfs/fs/activate"
	"dcfs/fs/durable"
	"dcfs/fs/materialise"
)

// site is a host: a directory of releases, and the state of dcfs.
type site struct {
	t   *testing.T
	top string
	Config
}

func newSite(t *testing.T) *site {
	t.Helper()
	top, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, top: top, Config: Config{
		Dir: filepath.Join(top, "rel"), State: filepath.Join(top, "state"), RunDir: filepath.Join(top, "run"),
		StaleAfter: time.Hour,
		stale:      func(context.Context) (dead, covered []string, err error) { return nil, nil, nil },
	}}
	for _, dir := range []string{s.Dir, s.State, s.RunDir} {
		s.mkdir(dir)
	}
	return s
}

func (s *site) mkdir(path string) string {
	s.t.Helper()
	if err := os.MkdirAll(path, 0o755); err != nil {
		s.t.Fatal(err)
	}
	return path
}

func (s *site) write(path, text string) string {
	s.t.Helper()
	s.mkdir(filepath.Dir(path))
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// age makes a file or directory look as if nobody had touched it for long.
func (s *site) age(path string) {
	s.t.Helper()
	long := time.Now().Add(-48 * time.Hour)
	if err := os.Chtimes(path, long, long); err != nil {
		s.t.Fatal(err)
	}
}

// release makes a complete release; those made later are newer.
func (s *site) release(version, path string) string {
	s.t.Helper()
	dest := filepath.Join(s.Dir, path)
	s.write(filepath.Join(dest, "sub/file"), version)
	var infohash [20]byte
	copy(infohash[:], version)
	if err := materialise.WriteReceipt(s.State, dest, version, infohash); err != nil {
		s.t.Fatal(err)
	}
	s.write(filepath.Join(s.State, "metainfo", fmt.Sprintf("%x.torrent", infohash)), "metainfo")
	return dest
}

func (s *site) link(name, to string) {
	s.t.Helper()
	if err := os.Symlink(to, filepath.Join(s.top, name)); err != nil {
		s.t.Fatal(err)
	}
}

// run cleans and returns the paths that were removed, below the site.
func (s *site) run(keep int) (removed []string) {
	s.t.Helper()
	s.Keep = keep
	report, err := Run(s.t.Context(), s.Config)
	if err != nil {
		s.t.Fatal(err)
	}
	var all []Outcome
	for _, r := range report.Releases {
		all = append(all, r.Outcome)
	}
	for _, l := range report.Leftovers {
		all = append(all, l.Outcome)
	}
	for _, o := range all {
		if len(o.Reasons) == 0 {
			s.t.Errorf("no reason: %+v", o)
		}
		if o.Done {
			removed = append(removed, strings.TrimPrefix(o.Path, s.top+"/"))
			if _, err := os.Lstat(o.Path); !errors.Is(err, os.ErrNotExist) {
				s.t.Errorf("%s is said to be removed: %v", o.Path, err)
			}
		}
	}
	slices.Sort(removed)
	return removed
}

func (s *site) want(keep int, removed ...string) {
	s.t.Helper()
	if got := s.run(keep); !slices.Equal(got, removed) {
		s.t.Errorf("--keep %d removed %q, want %q", keep, got, removed)
	}
}

// TestLinksKeep: each of these links keeps the release that it leads to.
func TestLinksKeep(t *testing.T) {
	for name, make := range map[string]func(s *site){
		"beside":          func(s *site) { s.link("current", s.Dir+"/1") },
		"relative":        func(s *site) { s.link("current", "rel/1") },
		"into it":         func(s *site) { s.link("current", "rel/1/sub/file") },
		"through another": func(s *site) { s.mkdir(s.top + "/far"); s.link("far/a", "../rel/1"); s.link("current", "far/a") },
		"in the directory": func(s *site) {
			s.link("rel/current", "1")
		},
		"through a renamed parent": func(s *site) { s.link("other", "rel"); s.link("current", s.top+"/other/1") },
		"activated elsewhere": func(s *site) {
			_, err := activate.Swap(s.top+"/far/away/current", s.Dir+"/1", activate.Options{State: s.State, Force: true})
			if err != nil {
				s.t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.release("1", "1")
			s.release("2", "2")
			make(s)
			s.want(0, "rel/2")
			if b, err := os.ReadFile(s.Dir + "/1/sub/file"); err != nil || string(b) != "1" {
				t.Errorf("%q, %v", b, err)
			}
		})
	}
}

// TestNothingElse: what dcfs did not make stays, and so do releases elsewhere
// and their records.
func TestNothingElse(t *testing.T) {
	s := newSite(t)
	s.release("web/1", "apps/web/1")
	s.release("web/2", "apps/web/2")
	s.release("db/1", "apps/db/1")
	s.release("out", "../elsewhere")
	s.write(s.Dir+"/handmade/file", "mine")
	s.write(s.Dir+"/.hidden/file", "mine")
	s.write(s.Dir+"/.looks-like.dcfs/file", "mine") // no lock, no record: no stage
	moved := s.release("moved", "moved")
	if err := os.Rename(moved, moved+"-away"); err != nil {
		t.Fatal(err)
	}
	s.want(1, "rel/apps/web/1")
	for _, path := range []string{"elsewhere", "rel/handmade", "rel/.hidden", "rel/.looks-like.dcfs", "rel/moved-away"} {
		if _, err := os.Stat(filepath.Join(s.top, path)); err != nil {
			t.Error(err)
		}
	}
	if err := os.Rename(moved+"-away", moved); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := materialise.Lookup(s.State, moved); !ok || err != nil {
		t.Errorf("a release that was away for a while is forgotten: %v", err)
	}
}

// TestUnknown: when it cannot be known who uses what, nothing is removed.
func TestUnknown(t *testing.T) {
	for name, make := range map[string]func(s *site){
		"a process does not answer": func(s *site) {
			l, err := net.Listen("unix", filepath.Join(s.RunDir, "4711.sock"))
			if err != nil {
				s.t.Skip(err) // the path is too long for a socket
			}
			s.t.Cleanup(func() { l.Close() })
		},
		"the history of a link is damaged": func(s *site) { s.write(s.State+"/links/0123.json", "{") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			dest := s.release("1", "1")
			make(s)
			report, err := Run(t.Context(), s.Config)
			if err == nil || len(report.Releases) > 0 {
				t.Errorf("%+v, %v", report, err)
			}
			if _, err := os.Stat(dest + "/sub/file"); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestLeftoversGo: each goes when it is old enough, and not before.
func TestLeftoversGo(t *testing.T) {
	s := newSite(t)
	s.release("1", "1")
	half := s.write(s.Dir+"/.dcfs-removed-0123/file", "half")
	stage := s.Dir + "/.2.dcfs"
	s.write(stage+"/lock", "4711\n")
	s.write(stage+"/tree/file", "part")
	orphan := s.release("gone", "gone")
	if err := os.RemoveAll(orphan); err != nil {
		t.Fatal(err)
	}
	s.write(s.State+"/metainfo/00112233.torrent", "nobody's")
	s.write(s.State+"/metainfo/readme", "mine")
	unwritten := s.write(s.State+"/receipts/.0123.json.tmp-89abcdef", "half")
	repair := s.Dir + "/.1.repair"
	s.write(repair+"/file", "damaged")
	unborn := s.mkdir(s.RunDir + "/.sock-1")

	s.want(1, strings.TrimPrefix(filepath.Dir(half), s.top+"/"))
	for _, path := range []string{stage, stage + "/lock", unborn, unwritten, s.State + "/metainfo/00112233.torrent", s.State + "/metainfo/readme"} {
		s.age(path)
	}
	s.want(1, "rel/.2.dcfs", "run/.sock-1", "state/metainfo/00112233.torrent", "state/receipts/.0123.json.tmp-89abcdef")

	s.StaleAfter = 0 // the rest shows its age by times that cannot be set
	s.want(1, "rel/.1.repair", "rel/gone", "state/metainfo/676f6e6500000000000000000000000000000000.torrent")
	s.want(1)
	if _, err := os.Stat(s.State + "/metainfo/readme"); err != nil {
		t.Error(err)
	}
}

// TestStageInUse: a stage whose lock is held is somebody's.
func TestStageInUse(t *testing.T) {
	s := newSite(t)
	s.StaleAfter = 0
	stage := s.mkdir(s.Dir + "/.1.dcfs")
	if err := os.Chmod(stage, 0o700); err != nil {
		t.Fatal(err)
	}
	lock, err := durable.Disk{}.Lock(stage + "/lock")
	if err != nil {
		t.Fatal(err)
	}
	s.want(0)
	if err := lock.Release(); err != nil {
		t.Fatal(err)
	}
	s.want(0, "rel/.1.dcfs")
}

func TestOneAtATime(t *testing.T) {
	s := newSite(t)
	lock, err := durable.Disk{}.Lock(s.State + "/gc.lock")
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Release()
	if _, err := Run(t.Context(), s.Config); !errors.Is(err, ErrBusy) {
		t.Errorf("got %v", err)
	}
	s.DryRun = true // changes nothing, so it may look
	if _, err := Run(t.Context(), s.Config); err != nil {
		t.Error(err)
	}
}
