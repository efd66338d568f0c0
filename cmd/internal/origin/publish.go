package origin

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"dcfs/cache/piece"
	"dcfs/cmd/internal/catalog"
	"dcfs/fs/durable"
	"dcfs/fs/prefetch"
	"dcfs/fs/release"
	"dcfs/fs/snapshot"
	"dcfs/fs/tree"
	"dcfs/swarm/gate"
	"dcfs/swarm/metainfo"
)

// PublishConfig says what to publish, as what, and where.
type PublishConfig struct {
	Dir         string
	Version     string
	KeyFile     string         // minisign secret key; empty publishes unsigned
	Origins     []string       // base URLs to upload to; empty stores in State
	Token       string         // for the upload
	Identity    *gate.Identity // for origins that ask for one; nil for none
	State       string
	TraceFile   string // recorded first accesses, which come first in the stream
	Exclude     []string
	PieceLength int64  // 0 picks by size
	Out         string // also write the metainfo to this file
	Expires     time.Time
	Log         *slog.Logger
	Progress    func(done, total int64) // bytes hashed
	Disk        durable.Disk            // the store's, for tests; the zero value is right
}

// Result is what publish tells.
type Result struct {
	Version     string
	InfoHash    string
	Files       int
	Bytes       int64
	Pieces      int
	PieceLength int64
	Changed     bool
	Torrent     string // where the metainfo was written or can be had
}

// Publish makes a release of a directory and hands it to the origin: to those
// named by URL, or into the store of a state directory, which a running origin
// notices by itself. Publishing the same content again changes nothing.
func Publish(ctx context.Context, c PublishConfig) (Result, error) {
	p := publisher{cfg: c}
	if err := p.prepare(ctx); err != nil {
		return Result{}, err
	}
	defer p.root.Close()
	changed, err := p.store(ctx)
	if err != nil {
		return Result{}, err
	}
	return p.result(changed)
}

type publisher struct {
	cfg     PublishConfig
	version catalog.Version
	key     *release.Secret
	trace   *prefetch.Trace // nil for none
	root    *os.Root
	scan    *tree.ScanResult
	tree    *tree.Tree
	signed  *metainfo.Metainfo
	lib     *Library // where it was kept; nil for an upload
}

// prepare scans the directory and lays it out; no content is read yet.
func (p *publisher) prepare(ctx context.Context) error {
	version, err := catalog.ParseVersion(p.cfg.Version)
	if err != nil {
		return err
	}
	p.version = version
	if p.cfg.KeyFile != "" {
		if p.key, err = release.LoadSecret(p.cfg.KeyFile); err != nil {
			return err
		}
	}
	if p.trace, err = p.readTrace(); err != nil {
		return err
	}
	if p.scan, err = tree.Scan(ctx, p.cfg.Dir, tree.ScanOptions{Exclude: p.cfg.Exclude}); err != nil {
		if errors.Is(err, syscall.ENOTDIR) {
			return fmt.Errorf("reading %s: %w; put the file into a directory and publish that", p.cfg.Dir, err)
		}
		return fmt.Errorf("reading %s: %w", p.cfg.Dir, err)
	}
	p.tree, err = tree.Build(p.scan.Nodes, tree.Plan{PieceLength: p.cfg.PieceLength, Hot: p.trace.Hot()})
	if err != nil {
		return err
	}
	p.root, err = os.OpenRoot(p.cfg.Dir)
	return err
}

func (p *publisher) readTrace() (*prefetch.Trace, error) {
	if p.cfg.TraceFile == "" {
		return nil, nil
	}
	f, err := os.Open(p.cfg.TraceFile)
	if err != nil {
		return nil, fmt.Errorf("--trace: %w", err)
	}
	defer f.Close()
	trace, err := prefetch.Read(f)
	if err != nil {
		return nil, fmt.Errorf("--trace %s: %w", p.cfg.TraceFile, err)
	}
	return trace, nil
}

func (p *publisher) store(ctx context.Context) (bool, error) {
	if len(p.cfg.Origins) > 0 {
		return p.upload(ctx)
	}
	return p.keep(ctx)
}

// hash reads the content once, into sink as well if that is not nil, and seals
// the release.
func (p *publisher) hash(ctx context.Context, sink io.WriterAt) error {
	return p.hashOf(ctx, snapshot.Config{Root: p.root, Tree: p.tree, Check: p.scan.Check, Sink: sink, Progress: p.cfg.Progress})
}

// hashOf seals the release of what cfg reads.
func (p *publisher) hashOf(ctx context.Context, cfg snapshot.Config) error {
	found, err := snapshot.Hash(ctx, cfg)
	if err != nil {
		return err
	}
	raw, err := metainfo.Create(p.tree.WithSums(found.Sum).WithWeak(found.Weak), metainfo.Params{
		Name: p.cfg.Version, Pieces: found.Pieces, Trackers: catalog.Trackers(p.cfg.Origins),
	})
	if err != nil {
		return err
	}
	mi, err := metainfo.Parse(raw)
	if err != nil {
		return err
	}
	if p.key == nil {
		p.signed = mi
		return nil
	}
	if raw, err = release.Seal(mi, p.key, time.Now(), p.cfg.Expires); err != nil {
		return err
	}
	p.signed, err = metainfo.Parse(raw)
	return err
}

// keep publishes into the local library, which gets a copy or clone of the
// content.
func (p *publisher) keep(ctx context.Context) (bool, error) {
	lib, err := openLibrary(p.cfg.State, p.cfg.Log, p.cfg.Disk)
	if err != nil {
		return false, err
	}
	p.lib = lib
	done, err := lib.claim(ctx, p.cfg.Version)
	if err != nil {
		return false, err
	}
	defer done()
	_, err = lib.Metainfo(p.cfg.Version)
	if err != nil && !errors.Is(err, catalog.ErrUnknownRelease) {
		return false, err
	}
	if err == nil {
		if err := p.hash(ctx, nil); err != nil {
			return false, err
		}
		_, err := lib.same(p.cfg.Version, p.signed.InfoHash)
		return false, err
	}
	layout := sha256.Sum256(tree.Encode(p.tree))
	stage, err := lib.stage(p.cfg.Version, p.tree, [20]byte(layout[:20]))
	if err != nil {
		return false, err
	}
	defer stage.Close()
	if err := p.fill(ctx, stage); err != nil {
		return false, errors.Join(err, stage.Discard())
	}
	if p.trace != nil {
		if err := lib.keepTrace(p.cfg.Version, p.ownTrace()); err != nil {
			return false, errors.Join(err, stage.Discard())
		}
	}
	return true, lib.commit(ctx, p.cfg.Version, stage, p.signed)
}

// ownTrace is what the trace says of this release.
func (p *publisher) ownTrace() *prefetch.Trace {
	own := p.trace.Within(p.tree, prefetch.MaxEntries)
	own.Release = p.cfg.Version
	return own
}

// upload publishes to origins over HTTP; the content is read a second time.
func (p *publisher) upload(ctx context.Context) (bool, error) {
	if err := p.hash(ctx, nil); err != nil {
		return false, err
	}
	client := &catalog.Client{Origins: p.cfg.Origins, Token: p.cfg.Token, Identity: p.cfg.Identity}
	defer client.Close()
	payload := snapshot.NewReader(ctx, snapshot.Config{Root: p.root, Tree: p.tree, Check: p.scan.Check})
	defer payload.Close()
	res, err := client.Publish(ctx, p.version, p.signed.Encode(), payload, p.tree.Total())
	if err == nil {
		p.uploadTrace(ctx, res.Origin)
	}
	return res.Changed, err
}

// uploadTrace gives the trace to the origin that has the release. The release
// is published all the same when that fails.
func (p *publisher) uploadTrace(ctx context.Context, origin string) {
	if p.trace == nil {
		return
	}
	client := &catalog.Client{Origins: []string{origin}, Token: p.cfg.Token, Identity: p.cfg.Identity}
	defer client.Close()
	if _, err := client.PutTrace(ctx, p.version, p.ownTrace().Encode(prefetch.MaxBytes)); err != nil {
		p.cfg.Log.Warn("the origin has the release, but not its trace: hosts fetch it in another order", "cause", err)
	}
}

func (p *publisher) result(changed bool) (Result, error) {
	layout := piece.Layout{Total: p.tree.Total(), Length: p.tree.PieceLength()}
	r := Result{
		Version: p.cfg.Version, InfoHash: hexHash(p.signed.InfoHash), Files: p.tree.Files(),
		Bytes: p.tree.Bytes(), Pieces: layout.Count(), PieceLength: layout.Length, Changed: changed,
	}
	if p.cfg.Out != "" {
		r.Torrent = p.cfg.Out
		return r, durable.Disk{}.WriteFile(p.cfg.Out, p.signed.Encode(), 0o644)
	}
	if len(p.cfg.Origins) == 0 {
		r.Torrent = filepath.Join(p.lib.home(p.cfg.Version), metainfoFile)
	} else {
		r.Torrent = p.cfg.Origins[0] + "/v1/releases/" + p.cfg.Version + ".torrent"
	}
	return r, nil
}

// copyPieces reads the payload stream piece by piece into the stage, keeping
// none whose hash is wrong.
func copyPieces(ctx context.Context, to io.WriterAt, mi *metainfo.Metainfo, payload io.Reader) error {
	buf := make([]byte, mi.Layout.Length)
	for i := range piece.Index(mi.Layout.Count()) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		b := buf[:mi.Layout.Size(i)]
		if _, err := io.ReadFull(payload, b); err != nil {
			return fmt.Errorf("%w: it ends inside piece %d: %w", ErrPayload, i, err)
		}
		if sha1.Sum(b) != mi.Pieces.Hash(i) {
			return fmt.Errorf("%w: piece %d has another hash", ErrPayload, i)
		}
		if _, err := to.WriteAt(b, mi.Layout.Offset(i)); err != nil {
			return err
		}
	}
	return nil
}
