package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dcfs/integration/browser"
	"dcfs/integration/lab"
)

// TestScreenshots makes the pictures of the docs from a real swarm: a release
// that stands on some hosts, and the next one on its way to all of them, with
// one host whose disk is full, one that was killed, one whose reader waits and
// one client that is not dcfs.
func TestScreenshots(t *testing.T) {
	if *screenshots == "" {
		t.Skip("`make screenshots` makes them")
	}
	lab.Require(t, lab.Tool("aria2c"))
	must(t, os.MkdirAll(*screenshots, 0o755))
	p := newPageLab(t, 13)
	p.Shape(lab.Shape{Up: "80mbit"})
	p.publish(sampleTree(t, 60, 4, 1<<20), "web/41")
	for i, n := range p.nodes[:5] {
		p.join(n, "web/41", "--rack", fmt.Sprintf("r%d", i%3+1))
	}
	for _, n := range p.nodes[:5] {
		n.reach(nil, "web/41", "lingering", time.Minute)
	}
	p.publish(sampleTree(t, 300, 14, 4<<20), "web/42")
	lost := p.nodes[11]
	lost.Shape(lab.Shape{Down: "1mbit"})
	doomed := p.join(lost, "web/42", "--rack", "r3")
	lost.reach(doomed, "web/42", "announced", time.Minute)
	lab.Poll(t.Context(), func() (bool, error) { return lost.status("web/42").BytesHave > 0, nil })
	doomed.Kill()
	full := p.nodes[12]
	must(t, unix.Mount("tmpfs", full.Releases(), "tmpfs", 0, "size=16m"))
	t.Cleanup(func() { must(t, unix.Unmount(full.Releases(), unix.MNT_DETACH)) })
	p.join(full, "web/42", "--rack", "r1")

	links := []string{"30mbit", "24mbit", "24mbit", "16mbit", "16mbit", "12mbit", "12mbit", "8mbit", "8mbit", "6mbit"}
	for i, down := range links {
		p.nodes[i].Shape(lab.Shape{Down: down, Up: "40mbit"})
		if i != 7 {
			p.mount(p.nodes[i], "--rack", fmt.Sprintf("r%d", i%3+1), "--http", p.nodes[i].Addr+":7073")
		}
	}
	reading := p.nodes[7]
	mount, mountpoint := p.mount(reading, "--rack", "r2")
	reading.reach(mount, "web/42", "mounted", time.Minute)
	stock := p.nodes[10]
	stock.Shape(lab.Shape{Down: "8mbit"})
	aria := stock.Start("aria2", func(c *exec.Cmd) { c.Dir = stock.Releases() }, "aria2c", "--seed-time=60", "--enable-dht=false",
		"--bt-enable-lpd=false", "--follow-torrent=mem", "--file-allocation=none", p.url()+"/v1/releases/web/42.torrent")

	b := browser.Start(t, p.Command)
	desk := browser.Screen{Width: 1440, Height: 900, Scale: 1}
	b.Patience = 3 * time.Minute
	b.Show(desk)
	b.Open(p.url() + "/#" + "web%2F42")
	b.Until(`view.detail && view.detail.release.progress > 0.2`)
	reader := reading.Start("reader", nil, "sh", "-c", "cat "+mountpoint+"/big/*.bin >/dev/null")
	b.Until(`view.detail.release.progress > 0.4 && view.detail.release.states.lost && view.detail.release.waiting > 0`)
	take := func(name string, s browser.Screen, whole bool) {
		b.Show(s)
		b.Eval(`tick().then(() => 0)`, nil)
		b.Picture(filepath.Join(*screenshots, name+".png"), whole)
	}
	take("page-light", desk, true)
	dark := desk
	dark.Dark = true
	take("page-dark", dark, true)
	take("page-phone", browser.Screen{Width: 390, Height: 844, Scale: 2, Mobile: true}, false)
	b.Show(desk)
	b.Open("http://" + p.nodes[4].Addr + ":7073/")
	b.Until(`view.detail && document.querySelectorAll('tr.row').length > 3`)
	take("page-node", desk, false)
	if complaints := b.Complaints(); len(complaints) > 0 {
		t.Errorf("the page complains: %s", complaints)
	}
	reader.Kill()
	aria.Kill()
}

// mount mounts web/42 on a host, and returns where.
func (p *pageLab) mount(n *node, more ...string) (*lab.Process, string) {
	at := filepath.Join(n.Mnt(), "web")
	must(p.t, os.MkdirAll(at, 0o755))
	return n.named("mount", append([]string{"mount", "web/42", at, "--origin", p.url(), "--linger", "1h", "--at-end", "unmount",
		"--read-timeout", "5m"}, more...)...), at
}
