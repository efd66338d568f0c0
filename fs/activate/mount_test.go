package activate

import (
	"context"
	"encoding/binary"
	"strconv"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// fakeMount mounts a filesystem of the type at dir and returns its device.
func fakeMount(t *testing.T, fstype, dir string) (fd int) {
	t.Helper()
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("SKIPPED: no mount to look at: %v", err)
	}
	opts := "fd=" + strconv.Itoa(fd) + ",rootmode=40000,user_id=0,group_id=0"
	if err := unix.Mount("dcfs", dir, fstype, unix.MS_NODEV|unix.MS_NOSUID, opts); err != nil {
		unix.Close(fd)
		t.Skipf("SKIPPED: no mount to look at: %v", err)
	}
	return fd
}

// answer serves INIT and STATFS as a FUSE daemon does, until the unmount.
func answer(fd int) {
	buf := make([]byte, 1<<17)
	for {
		n, err := unix.Read(fd, buf)
		if err == unix.EINTR || err == unix.EAGAIN {
			continue
		}
		if err != nil || n < 40 {
			return
		}
		var body []byte
		switch binary.LittleEndian.Uint32(buf[4:]) {
		case 26: // INIT: version 7.31
			body = make([]byte, 64)
			binary.LittleEndian.PutUint32(body[0:], 7)
			binary.LittleEndian.PutUint32(body[4:], 31)
			binary.LittleEndian.PutUint32(body[20:], 4096)
		case 17: // STATFS
			body = make([]byte, 80)
		}
		out := make([]byte, 16, 16+len(body))
		binary.LittleEndian.PutUint32(out, uint32(16+len(body)))
		if body == nil {
			binary.LittleEndian.PutUint32(out[4:], ^uint32(unix.ENOSYS)+1)
		}
		copy(out[8:16], buf[8:16])
		_, _ = unix.Write(fd, append(out, body...))
	}
}

func TestNoMountIsNotLive(t *testing.T) {
	dir := t.TempDir()
	for _, p := range []string{dir, "/", "/proc", dir + "/none/at/all"} {
		if live, err := IsLiveMount(context.Background(), p); live || err != nil {
			t.Errorf("%s: %v, %v", p, live, err)
		}
	}
}

func TestLiveMount(t *testing.T) {
	for fstype, want := range map[string]bool{"fuse.dcfs": true, "fuse.other": false} {
		t.Run(fstype, func(t *testing.T) {
			dir := t.TempDir()
			fd := fakeMount(t, fstype, dir)
			var daemon sync.WaitGroup
			daemon.Go(func() { answer(fd) })
			t.Cleanup(func() {
				must(t, unix.Unmount(dir, 0))
				daemon.Wait()
				unix.Close(fd)
			})
			if live, err := IsLiveMount(context.Background(), dir); live != want || err != nil {
				t.Errorf("live %v, %v; want %v", live, err, want)
			}
			// Handed over: something real lies on top.
			real := t.TempDir()
			must(t, unix.Mount(real, dir, "", unix.MS_BIND, ""))
			defer unix.Unmount(dir, unix.MNT_DETACH)
			if live, err := IsLiveMount(context.Background(), dir); live || err != nil {
				t.Errorf("after the handover: %v, %v", live, err)
			}
		})
	}
}

// A mount whose process never answers costs no more than the deadline, and one
// whose process is dead is not live.
func TestStaleMount(t *testing.T) {
	dir := t.TempDir()
	fd := fakeMount(t, "fuse.dcfs", dir)
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	done, cancel := context.WithCancel(context.Background())
	cancel()
	if live, err := IsLiveMount(done, dir); live || err != nil {
		t.Errorf("a mount that does not answer: %v, %v", live, err)
	}
	must(t, unix.Close(fd))
	if live, err := IsLiveMount(context.Background(), dir); live || err != nil {
		t.Errorf("a dead mount: %v, %v", live, err)
	}
}
