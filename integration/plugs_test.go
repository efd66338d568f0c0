package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dcfs/integration/lab"
)

// plug runs somebody else's program on the host, three minutes at most, and
// returns what it printed.
func (n *node) plug(dir string, env []string, name string, args ...string) (out string, code int) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), 3*time.Minute)
	defer cancel()
	cmd := n.Command(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, append(n.env(), env...)
	var buf bytes.Buffer
	cmd.Stdout, cmd.Stderr = &buf, &buf
	err := cmd.Run()
	var exit *exec.ExitError
	if ctx.Err() != nil || err != nil && !errors.As(err, &exit) {
		n.t.Fatalf("%s %v: %v\n%s", name, args, err, &buf)
	}
	return buf.String(), cmd.ProcessState.ExitCode()
}

func plugs(t testing.TB, elem ...string) string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join(append([]string{moduleRoot, "docs", "plugs"}, elem...)...))
	must(t, err)
	return dir
}

// ansibleModule runs the module with Debian's ansible-core: what changes, what
// would, and what does not.
func ansibleModule(t *testing.T) {
	t.Parallel()
	lab.Require(t, lab.Root, lab.Tool("ansible-playbook"))
	l := lab.New(t, "origin", "h")
	o := newOrigin(t, l.Host("origin"))
	tree := sampleTree(t, 20, 2, 1<<20)
	first := o.publish(tree, "web-1")
	must(t, flip(filepath.Join(tree, "big/00.bin")))
	second := o.publish(tree, "web-2")
	n := o.newNode(l.Host("h"))
	a := &ansible{node: n, o: o, dest: filepath.Join(n.Releases(), "web"), link: filepath.Join(n.Dir, "current")}

	if got := a.play("web-1", "--check"); !got.Changed || !got.Fetched || !got.Activated {
		t.Errorf("check on a bare host: %+v", got)
	}
	if _, err := os.Lstat(a.dest + "-web-1"); !os.IsNotExist(err) {
		t.Errorf("check mode made a copy (%v)", err)
	}
	for _, step := range []struct {
		version string
		more    []string
		changed bool
		on      published
	}{
		{"web-1", nil, true, first},
		{"web-1", nil, false, first},
		{"web-1", []string{"--check"}, false, first},
		{"web-2", []string{"--check"}, true, first},
		{"web-2", nil, true, second},
		{"web-1", nil, true, first}, // back: the copy is there, the link is not
	} {
		got := a.play(step.version, step.more...)
		if got.Changed != step.changed {
			t.Errorf("%s %v: %+v, want changed %v", step.version, step.more, got, step.changed)
		}
		if target, err := os.Readlink(a.link); err != nil || target != a.dest+"-"+step.on.Version {
			t.Errorf("%s %v: the link leads to %q (%v), want %s", step.version, step.more, target, err, step.on.Version)
		}
		if len(step.more) == 0 && got.Infohash != step.on.Infohash {
			t.Errorf("%s: infohash %q, want %s", step.version, got.Infohash, step.on.Infohash)
		}
	}
	n.ok("verify", o.url()+"/v1/releases/web-1", a.dest+"-web-1")
	out, code := a.run("nowhere")
	if code == 0 || !strings.Contains(out, "unknown release") {
		t.Errorf("an unknown release: exit %d\n%s", code, out)
	}
}

type ansible struct {
	*node
	o          *origin
	dest, link string
}

type ansibleResult struct {
	Changed, Fetched, Activated bool
	Infohash                    string
}

func (a *ansible) run(version string, more ...string) (string, int) {
	a.t.Helper()
	file := filepath.Join(a.Dir, "play.yml")
	must(a.t, os.WriteFile(file, fmt.Appendf(nil, `
- hosts: all
  gather_facts: false
  tasks:
    - dcfs_release:
        release: %s
        dest: %s-%s
        origin: [%s]
        activate: %s
        linger: 0s
        executable: %s
      register: r
    - copy: {content: "{{ r | to_json }}", dest: %s/result.json}
      check_mode: false
`, version, a.dest, version, a.o.url(), a.link, a.bin, a.Dir), 0o644))
	env := []string{"ANSIBLE_LIBRARY=" + plugs(a.t, "ansible", "library"), "ANSIBLE_NOCOLOR=1", "HOME=" + a.Dir,
		"ANSIBLE_LOCALHOST_WARNING=False", "ANSIBLE_PYTHON_INTERPRETER=/usr/bin/python3"}
	return a.plug(a.Dir, env, "ansible-playbook", append([]string{"-i", "h,", "-c", "local", file}, more...)...)
}

func (a *ansible) play(version string, more ...string) (r ansibleResult) {
	a.t.Helper()
	out, code := a.run(version, more...)
	raw, err := os.ReadFile(filepath.Join(a.Dir, "result.json"))
	if code != 0 || err != nil || json.Unmarshal(raw, &r) != nil {
		a.t.Fatalf("%s %v: exit %d, %v\n%s", version, more, code, err, out)
	}
	return r
}

// capistranoPlugin deploys with Debian's Capistrano through a real sshd on each
// of two hosts, deploys again, goes back, and meets a host that cannot.
func capistranoPlugin(t *testing.T) {
	t.Parallel()
	lab.Require(t, lab.Root, lab.Tool("cap"))
	if _, err := os.Stat("/usr/sbin/sshd"); err != nil {
		t.Skip("skipped: no sshd; `make deps` does not install openssh-server, which starts a service")
	}
	l := lab.New(t, "origin", "h1", "h2")
	o := newOrigin(t, l.Host("origin"))
	c := newCap(t, o, o.newNode(l.Host("h1")), o.newNode(l.Host("h2")))
	c.deploy("one")
	c.on("one")
	c.deploy("two")
	c.on("two")
	if out, code := c.cap("deploy:rollback"); code != 0 {
		t.Fatalf("rollback: exit %d\n%s", code, out)
	}
	c.on("one")

	// One host trusts nobody: no link moves, on no host.
	must(t, os.RemoveAll(c.hosts[1].trusted()))
	c.content("three")
	if out, code := c.cap("deploy"); code == 0 || !strings.Contains(out, "dcfs") {
		t.Errorf("a host that trusts nobody: exit %d\n%s", code, out)
	}
	c.on("one")
}

// capistrano is a project that is deployed to some hosts.
type capistrano struct {
	*origin
	dir      string // of the project
	deployTo string // the same on each host, which has a directory of its own there
	hosts    []*node
}

func newCap(t *testing.T, o *origin, hosts ...*node) *capistrano {
	t.Helper()
	c := &capistrano{origin: o, dir: filepath.Join(o.Dir, "project"), deployTo: filepath.Join(t.TempDir(), "web"), hosts: hosts}
	must(t, os.Mkdir(c.deployTo, 0o755))
	key := filepath.Join(o.Dir, "ssh")
	tool(t, "/", "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
	var servers strings.Builder
	for _, h := range hosts {
		h.sshd(key, c.deployTo)
		fmt.Fprintf(&servers, "server %q, user: \"root\", roles: %%w{app}\n", h.Addr)
	}
	for name, text := range map[string]string{
		"Capfile": fmt.Sprintf(`
require "capistrano/setup"
require "capistrano/deploy"
$LOAD_PATH.unshift %q
require "capistrano/scm/dcfs"
install_plugin Capistrano::SCM::Dcfs
`, plugs(t, "capistrano", "lib")),
		"config/deploy.rb": fmt.Sprintf(`
set :application, "web"
set :deploy_to, %q
set :dcfs_source, "build"
set :dcfs_origin, %q
set :dcfs_key, %q
set :dcfs_publish_token_file, %q
set :dcfs_linger, "0s"
set :keep_releases, 2
set :linked_dirs, ["log"]
set :ssh_options, keys: [%q], port: 2222, auth_methods: ["publickey"], verify_host_key: :never, config: false
SSHKit.config.command_map[:dcfs] = %q
`, c.deployTo, o.url(), o.key+".key", o.token, key, o.bin),
		"config/deploy/production.rb": servers.String(),
	} {
		path := filepath.Join(c.dir, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, []byte(text), 0o644))
	}
	return c
}

// sshd starts one on port 2222 that knows one key. Its own table of mounts has
// a directory of this host at deployTo.
func (n *node) sshd(key, deployTo string) {
	n.t.Helper()
	must(n.t, os.MkdirAll("/run/sshd", 0o755)) // it wants it, and shares it with any other
	own, hostKey, config := filepath.Join(n.Dir, "web"), filepath.Join(n.Dir, "hostkey"), filepath.Join(n.Dir, "sshd_config")
	must(n.t, os.Mkdir(own, 0o755))
	tool(n.t, "/", "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", hostKey)
	must(n.t, os.WriteFile(config, fmt.Appendf(nil, `
ListenAddress %s:2222
HostKey %s
AuthorizedKeysFile %s.pub
StrictModes no
UsePAM no
PidFile none
PasswordAuthentication no
SetEnv DCFS_STATE=%s DCFS_RUN=%s DCFS_TRUSTED=%s
`, n.Addr, hostKey, key, n.State(), n.Run(), n.trusted()), 0o600))
	p := n.Start("sshd", nil, "unshare", "--mount", "--propagation", "private", "sh", "-c",
		`mount --bind "$1" "$2" && exec /usr/sbin/sshd -D -e -f "$3"`, "sh", own, deployTo, config)
	ctx, cancel := context.WithTimeout(n.t.Context(), 20*time.Second)
	defer cancel()
	must(n.t, p.WaitLog(ctx, "Server listening"))
}

// content is what is deployed next.
func (c *capistrano) content(name string) {
	c.t.Helper()
	build := filepath.Join(c.dir, "build")
	must(c.t, os.MkdirAll(build, 0o755))
	must(c.t, os.WriteFile(filepath.Join(build, "NAME"), []byte(name), 0o644))
	must(c.t, os.WriteFile(filepath.Join(build, "big"), bytes.Repeat([]byte(name), 1<<20), 0o644))
}

func (c *capistrano) cap(task string) (string, int) {
	c.t.Helper()
	return c.plug(c.dir, []string{"HOME=" + c.Dir, "LANG=C.UTF-8"}, "cap", "production", task)
}

func (c *capistrano) deploy(name string) {
	c.t.Helper()
	c.content(name)
	if out, code := c.cap("deploy"); code != 0 {
		c.t.Fatalf("deploy of %s: exit %d\n%s", name, code, out)
	}
}

// on checks what every host's current leads to.
func (c *capistrano) on(name string) {
	c.t.Helper()
	for _, h := range c.hosts {
		own := filepath.Join(h.Dir, "web")
		target, err := os.Readlink(filepath.Join(own, "current"))
		must(c.t, err)
		release := filepath.Join(own, strings.TrimPrefix(target, c.deployTo))
		big, err := os.ReadFile(filepath.Join(release, "big"))
		if err != nil || !bytes.Equal(big, bytes.Repeat([]byte(name), 1<<20)) {
			c.t.Errorf("%s is not on %s: %d bytes, %v", h.Name, name, len(big), err)
		}
		if log, err := os.Readlink(filepath.Join(release, "log")); err != nil || log != filepath.Join(c.deployTo, "shared/log") {
			c.t.Errorf("%s: log leads to %q (%v)", h.Name, log, err)
		}
	}
}

// TestRecipes: the recipes for Nomad and Kubernetes parse, fit together, and their
// command lines do what the page says. That either of the two runs them is what
// nothing here shows.
func TestRecipes(t *testing.T) {
	lab.Require(t, lab.Root, lab.FUSE, lab.Namespaces, lab.Tool("jq"), lab.Tool("curl"), lab.Tool("openssl"),
		lab.Works("python3-pyhcl and python3-yaml", "/usr/bin/python3", "-c", "import hcl, yaml"))
	dir := machineDir(t)
	must(t, os.Mkdir(filepath.Join(dir, "bin"), 0o755))
	copyFile(t, dcfsBinary(t), filepath.Join(dir, "bin/dcfs"))
	for _, p := range docPages(t) {
		if p.name != "docs/plugs.md" {
			continue
		}
		for _, b := range p.blocks {
			name := fmt.Sprintf("block-%d.%s", b.line, b.lang)
			if b.lang == "yaml" && strings.Contains(b.text, "kind: DaemonSet") {
				name = "kubernetes.yaml"
			}
			must(t, os.WriteFile(filepath.Join(dir, name), []byte(b.text), 0o644))
		}
	}
	onMachine(t, dir, "bash", "/machine/module/integration/testdata/recipes.sh")
}
