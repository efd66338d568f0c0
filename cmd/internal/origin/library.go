package origin

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"dcfs/cmd/internal/catalog"
	"dcfs/fs/durable"
	"dcfs/fs/materialise"
	"dcfs/fs/tree"
	"dcfs/swarm/metainfo"
)

// ErrPayload is wrapped when a payload is not the one that its metainfo
// describes.
var ErrPayload = errors.New("the payload does not match the release")

// Library is the origin's store of releases on disk: one directory per version
// with the payload as a plain tree (data) and the metainfo (release.torrent),
// which is written last: a directory without it holds no release.
type Library struct {
	state string
	dir   string // below state
	log   *slog.Logger
	disk  durable.Disk
}

// OpenLibrary returns the library of a state directory, making what is missing.
func OpenLibrary(state string, log *slog.Logger) (*Library, error) {
	return openLibrary(state, log, durable.Disk{})
}

func openLibrary(state string, log *slog.Logger, disk durable.Disk) (*Library, error) {
	dir := filepath.Join(state, "origin")
	if err := disk.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("the origin's store: %w; choose another directory with --state", err)
	}
	return &Library{state: state, dir: dir, log: log, disk: disk}, nil
}

const (
	metainfoFile = "release.torrent"
	dataDir      = "data"
	// maxMetainfo bounds what is read of a metainfo file, in bytes.
	maxMetainfo = 64 << 20
)

// home is the directory of a version. "@" cannot be in a version, so versions
// with several segments lie flat beside each other.
func (lib *Library) home(version string) string {
	return filepath.Join(lib.dir, strings.ReplaceAll(version, "/", "@"))
}

// Data returns the directory that holds a version's payload.
func (lib *Library) Data(version string) string { return filepath.Join(lib.home(version), dataDir) }

// Versions lists what the library holds, in the order of the names.
func (lib *Library) Versions() ([]string, error) {
	entries, err := os.ReadDir(lib.dir)
	if err != nil {
		return nil, fmt.Errorf("the origin's store: %w", err)
	}
	var out []string
	for _, e := range entries {
		v := strings.ReplaceAll(e.Name(), "@", "/")
		if _, err := catalog.ParseVersion(v); err != nil {
			continue
		}
		if _, err := os.Stat(filepath.Join(lib.dir, e.Name(), metainfoFile)); err == nil {
			out = append(out, v)
		}
	}
	return out, nil
}

// Metainfo returns the metainfo of a version, or catalog.ErrUnknownRelease.
func (lib *Library) Metainfo(version string) (*metainfo.Metainfo, error) {
	raw, err := lib.read(version)
	if err != nil {
		return nil, err
	}
	return metainfo.Parse(raw)
}

// read returns the metainfo file of a version, or catalog.ErrUnknownRelease.
func (lib *Library) read(version string) ([]byte, error) {
	if _, err := catalog.ParseVersion(version); err != nil {
		return nil, err
	}
	f, err := lib.openMetainfo(version)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s; see dcfs ls", catalog.ErrUnknownRelease, version)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	raw := make([]byte, min(info.Size(), maxMetainfo)) // at once: growing would take twice as much
	_, err = io.ReadFull(f, raw)
	return raw, err
}

func (lib *Library) openMetainfo(version string) (*durable.File, error) {
	home, err := lib.disk.OpenDir(lib.home(version))
	if err != nil {
		return nil, err
	}
	defer home.Close()
	return home.Open(metainfoFile, os.O_RDONLY, 0)
}

// last makes a release last that is there already: who published it may not
// have come to that.
//
//	open(HOME); fsync(HOME)
func (lib *Library) last(version string) error {
	home, err := lib.disk.OpenDir(lib.home(version))
	if err != nil {
		return err
	}
	defer home.Close()
	return home.Sync()
}

// same reports whether the library holds version with this info-hash; the
// error wraps catalog.ErrConflict when it holds the version with another.
func (lib *Library) same(version string, infoHash [20]byte) (bool, error) {
	old, err := lib.Metainfo(version)
	if errors.Is(err, catalog.ErrUnknownRelease) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("the stored release %s: %w", version, err)
	}
	if old.InfoHash == infoHash {
		return true, lib.last(version)
	}
	return false, fmt.Errorf("%w: %s has the info-hash %x here, not %x; publish under another version",
		catalog.ErrConflict, version, old.InfoHash, infoHash)
}

// claim makes the caller the only one that publishes a version until it calls
// release. It waits for another one, claimWait at most; then the error wraps
// ErrBusy. The lock's file is beside the version's directory and goes with it.
//
//	open, flock STATE/origin/.publish-VERSION … unlink, close
func (lib *Library) claim(ctx context.Context, version string) (release func(), err error) {
	dir, err := lib.disk.OpenDir(lib.dir)
	if err != nil {
		return nil, err
	}
	name := ".publish-" + filepath.Base(lib.home(version))
	limit := time.Now().Add(claimWait)
	for {
		lock, err := dir.Lock(name)
		if err == nil {
			return func() {
				_ = dir.Remove(name) // while it is held: who waits looks for a new one
				_ = lock.Release()
				_ = dir.Close()
			}, nil
		}
		if !errors.Is(err, durable.ErrHeld) {
			return nil, errors.Join(err, dir.Close())
		}
		if time.Now().After(limit) {
			_ = dir.Close()
			return nil, fmt.Errorf("%w: somebody else is publishing %s: %w; try again when that is done", ErrBusy, version, err)
		}
		select {
		case <-ctx.Done():
			_ = dir.Close()
			return nil, context.Cause(ctx)
		case <-time.After(claimPause):
		}
	}
}

// How long, and how often, a publisher waits for another of the same version.
const (
	claimWait  = 30 * time.Second
	claimPause = 100 * time.Millisecond
)

// stage opens the place where the payload of a version is collected. id tells
// an interrupted attempt at the same content from one at another.
func (lib *Library) stage(version string, t *tree.Tree, id [20]byte) (*materialise.Stage, error) {
	data := lib.Data(version)
	if err := lib.sweep(version); err != nil {
		return nil, err
	}
	if err := materialise.CheckSpace(data, t); err != nil {
		return nil, err
	}
	return materialise.OpenStage(materialise.StageConfig{
		Dest: data, Tree: t, InfoHash: id, Log: lib.log, Disk: lib.disk,
	})
}

// sweep removes a payload that was never finished with a metainfo, and what a
// crash left of the metainfo itself.
//
//	unlinkat(…) HOME/data, HOME/trace, HOME/.….tmp-…; fsync(HOME)
func (lib *Library) sweep(version string) error {
	home, err := lib.disk.OpenDir(lib.home(version))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer home.Close()
	if _, err := home.Lstat(metainfoFile); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	names, err := home.Names()
	if err != nil {
		return err
	}
	for _, name := range names {
		if name != dataDir && name != traceFile && !durable.IsTemporary(name) {
			continue
		}
		if err := home.RemoveAll(name); err != nil {
			return err
		}
	}
	return home.Sync()
}

// commit makes a staged payload a release: the payload first, then the
// metainfo, whose appearance is the moment of publication.
//
//	as materialise.Stage.Finish, into HOME/data
//	write, fsync, rename HOME/release.torrent; fsync(HOME)   durable.Dir.WriteFile
//
// testdata/publish.golden has every call. After a crash before the last rename
// there is no release, and the next attempt begins with sweep.
func (lib *Library) commit(ctx context.Context, version string, stage *materialise.Stage, mi *metainfo.Metainfo) error {
	if err := stage.Finish(ctx, materialise.Completion{State: lib.state, Version: version}); err != nil {
		return err
	}
	return lib.disk.WriteFile(filepath.Join(lib.home(version), metainfoFile), mi.Encode(), 0o644)
}

// Add takes a release whose payload comes as a stream, checking every piece
// before it is kept. It reports whether the library changed.
func (lib *Library) Add(ctx context.Context, version string, mi *metainfo.Metainfo, payload io.Reader) (bool, error) {
	if _, err := catalog.ParseVersion(version); err != nil {
		return false, err
	}
	release, err := lib.claim(ctx, version)
	if err != nil {
		return false, err
	}
	defer release()
	if same, err := lib.same(version, mi.InfoHash); same || err != nil {
		return false, err
	}
	stage, err := lib.stage(version, mi.Tree, mi.InfoHash)
	if err != nil {
		return false, err
	}
	defer stage.Close()
	if err := copyPieces(ctx, stage, mi, payload); err != nil {
		return false, errors.Join(err, stage.Discard())
	}
	return true, lib.commit(ctx, version, stage, mi)
}

func hexHash(h [20]byte) string { return hex.EncodeToString(h[:]) }
