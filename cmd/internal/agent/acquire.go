package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"

	"dcfs/cmd/internal/catalog"
	"dcfs/fs"
	"dcfs/fs/activate"
	"dcfs/fs/durable"
	"dcfs/fs/materialise"
	"dcfs/fs/release"
	"dcfs/swarm"
	"dcfs/swarm/metainfo"
)

// preflight refuses what cannot work before anything is asked of the network.
func (l *life) preflight(ctx context.Context) error {
	for _, p := range []*string{&l.cfg.Dest, &l.cfg.Mountpoint, &l.cfg.Activate, &l.cfg.State} {
		if *p == "" {
			continue
		}
		abs, err := filepath.Abs(*p)
		if err != nil {
			return err
		}
		*p = abs
	}
	if err := l.checkLink(); err != nil || l.cfg.Mountpoint == "" {
		return err
	}
	inPlace := l.cfg.Mountpoint == l.cfg.Dest
	for flag, path := range map[string]string{"--dest": l.cfg.Dest, "--activate": l.cfg.Activate} {
		if flag == "--dest" && inPlace {
			continue
		}
		if path != "" && (within(path, l.cfg.Mountpoint) || within(l.cfg.Mountpoint, path)) {
			return fmt.Errorf("%w: %s %s and MOUNTPOINT %s lie in one another: give each a place of its own",
				ErrConfig, flag, path, l.cfg.Mountpoint)
		}
	}
	if l.cfg.Resume != nil {
		return nil
	}
	if inPlace {
		if done, err := l.standsInPlace(ctx); done || err != nil {
			return err
		}
	}
	err := afterDeath(ctx, func() (err error) {
		l.place, err = fs.Prepare(ctx, l.cfg.Mountpoint, l.log)
		return err
	})
	if inPlace {
		l.inPlace, l.cfg.Dest = true, l.place.Path
		return err
	}
	return l.acceptNative(err)
}

// standsInPlace finds out whether a whole release stands at the mountpoint
// already: then there is nothing to mount, and what a life that was killed
// left mounted aside goes.
func (l *life) standsInPlace(ctx context.Context) (bool, error) {
	if _, whole, err := materialise.Lookup(l.cfg.State, l.cfg.Dest); !whole {
		l.log.Debug("nothing whole stands at the mountpoint", "cause", err)
		return false, nil // a dead mount, at worst, which Prepare takes away
	}
	dest, err := durable.Resolve(l.cfg.Dest)
	if err != nil {
		return false, err
	}
	l.log.Info("a release stands at the mountpoint itself: nothing needs to be mounted", "dest", dest)
	l.cfg.Mountpoint = ""
	return true, fs.Free(ctx, materialise.Aside(dest), l.log)
}

// checkLink refuses early what could not be swapped at the end.
func (l *life) checkLink() error {
	if l.cfg.Activate == "" {
		return nil
	}
	if st, err := os.Lstat(l.cfg.Activate); err == nil && st.Mode()&os.ModeSymlink == 0 {
		return fmt.Errorf("%w: %s; move it away or choose another --activate", activate.ErrNotLink, l.cfg.Activate)
	}
	return nil
}

// openNode listens for peers. It comes first because a magnet's metadata is
// fetched from them.
func (l *life) openNode(ctx context.Context) error {
	return afterDeath(ctx, func() error {
		node, err := swarm.NewNode(swarm.NodeConfig{
			Listen:   l.cfg.PeerListen,
			MaxPeers: l.cfg.MaxPeers, Unverified: min(l.cfg.CacheBytes/4, maxUnverified),
			Version: l.cfg.Version, Trade: l.cfg.Trade, Gate: l.cfg.Gate, Log: l.log,
		})
		l.mu.Lock()
		l.node = node
		l.mu.Unlock()
		return err
	})
}

func (l *life) closeNode() {
	if err := l.node.Close(); err != nil {
		l.log.Debug("closing the peer port", "cause", err)
	}
}

// acquire finds the release and proves that it may be used here.
func (l *life) acquire(ctx context.Context) error {
	if l.cfg.Resume != nil {
		ctx, cancel := context.WithTimeout(ctx, lookupTime)
		defer cancel()
		if err := l.findOrigins(ctx); err != nil {
			l.cfg.Origins = nil // the mount goes on all the same
		}
		return l.inherit()
	}
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Wait)
	defer cancel()
	if err := l.findOrigins(ctx); err != nil {
		return err
	}
	client := &catalog.Client{Origins: l.cfg.Origins, Identity: l.cfg.Gate.Identity}
	if len(l.named) > 0 {
		client.Origins = l.named // to be looked up again at every try
	}
	defer client.Close()
	src, err := catalog.Resolve(ctx, l.cfg.Release, catalog.Options{Client: client, Log: l.log})
	if err != nil {
		return err
	}
	opt := release.OpenOptions{Want: string(src.Version), AllowUnsigned: l.cfg.InsecureUnsigned}
	if opt.Trust, err = release.LoadTrusted(l.cfg.TrustedDir); err != nil {
		return err
	}
	var rel *release.Release
	if src.Magnet != "" {
		rel, err = l.fetchMetadata(ctx, src.Magnet, opt)
	} else {
		raw := l.offHeap(src.Metainfo)
		src.Metainfo = nil // it need not be there twice
		rel, err = release.Open(raw, opt)
	}
	if err != nil {
		return err
	}
	if len(rel.Metainfo) >= largeMetainfo {
		debug.SetGCPercent(largeGC)
	}
	if l.cfg.Owner != nil {
		rel = rel.GivenTo(*l.cfg.Owner)
	}
	if l.origins = src.Origins; len(l.origins) == 0 {
		l.origins = l.cfg.Origins
	}
	l.adopt(rel, append(src.Trackers, rel.Trackers...))
	return nil
}

// fetchMetadata gets a magnet's metadata from its peers (BEP 9).
func (l *life) fetchMetadata(ctx context.Context, uri string, opt release.OpenOptions) (*release.Release, error) {
	magnet, err := metainfo.ParseMagnet(uri)
	if err != nil {
		return nil, err
	}
	info, err := l.node.FetchInfo(ctx, magnet.InfoHash, magnet.Trackers, append(magnet.Peers, l.cfg.Peers...))
	if err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%w: %w; is a tracker or a peer named in the magnet reachable?", ErrNoSource, err)
		}
		return nil, err
	}
	return release.OpenMagnet(magnet, info, opt)
}

// metainfoDir makes the directory that keeps metainfo.
func (l *life) metainfoDir() (string, error) {
	dir := filepath.Join(l.cfg.State, "metainfo")
	if err := (durable.Disk{}).MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("the state directory: %w; choose another with --state", err)
	}
	return dir, nil
}

// largeMetainfo is the size in bytes from which metainfo does not stay on the
// heap: some 50,000 files.
const largeMetainfo = 4 << 20

// largeGC is how much garbage, in percent of what is alive, may gather beside a
// large tree. As much as is alive, the default, would double the process; a
// collection costs little, because such a tree has no pointers to follow.
const largeGC = 5

// offHeap returns metainfo, which is there as long as the life and rarely
// looked at, as memory that the kernel can take back if it is large.
func (l *life) offHeap(raw []byte) []byte {
	if len(raw) < largeMetainfo {
		return raw
	}
	dir, err := l.metainfoDir()
	if err == nil {
		var mapped []byte
		if mapped, err = durable.Map(dir, raw); err == nil {
			l.mapped = mapped
			return mapped
		}
	}
	l.log.Debug("the metainfo stays on the heap", "cause", err)
	return raw
}

// saveMetainfo keeps the release's signed metainfo, so that verify and a later
// start need no network. Nobody has to wait for that with a first read.
func (l *life) saveMetainfo() error {
	dir, err := l.metainfoDir()
	if err != nil {
		return err
	}
	path := filepath.Join(dir, fmt.Sprintf("%x.torrent", l.rel.InfoHash))
	return durable.Disk{}.WriteFile(path, l.rel.Metainfo, 0o644)
}

// settle gives the memory back that reading a large release took.
func (l *life) settle() {
	if len(l.rel.Metainfo) < largeMetainfo {
		return
	}
	debug.FreeOSMemory()
	if l.mapped != nil {
		durable.Unload(l.mapped)
	}
}

// openContent opens the staged files, or a copy that stands already, and the
// piece store over them.
func (l *life) openContent(ctx context.Context) error {
	var err error
	if l.whole, err = materialise.Complete(l.cfg.State, l.cfg.Dest, l.rel.InfoHash); err != nil {
		return err
	}
	if l.whole {
		l.log.Info("the release is materialised here already", "dest", l.cfg.Dest)
		err = afterDeath(ctx, func() (err error) { l.disk, err = l.openCopy(); return err })
	} else {
		err = afterDeath(ctx, func() (err error) { l.disk, err = l.openStage(); return err })
	}
	if err != nil {
		return err
	}
	if err := l.openStore(); err != nil {
		return errors.Join(err, l.disk.Close())
	}
	boundMemory(l.cfg.CacheBytes)
	return nil
}

// maxUnverified bounds the bytes that are asked for ahead of their verification,
// however much RAM there is: the library looks through all of them each time
// that it asks for something, and readers wait meanwhile.
const maxUnverified = 64 << 20
