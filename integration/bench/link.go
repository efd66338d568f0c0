package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"

	"dcfs/integration/lab"
)

// link is two network namespaces that see each other through a link of a
// certain rate, and nothing else.
type link struct{ near, far string }

// The addresses of its ends.
const (
	nearAddr = "10.78.0.1"
	farAddr  = "10.78.0.2"
)

// newLink makes one with a rate as tc(8) writes it; close takes it away. The
// names are those of the tests' namespaces, which sweep up after the dead.
func newLink(rate string) (*link, error) {
	l := &link{near: fmt.Sprintf("%s%d-near", lab.Prefix, os.Getpid()), far: fmt.Sprintf("%s%d-far", lab.Prefix, os.Getpid())}
	commands := []string{
		"ip netns add " + l.near,
		"ip netns add " + l.far,
		"ip link add eth0 netns " + l.near + " type veth peer name eth0 netns " + l.far,
	}
	for ns, addr := range map[string]string{l.near: nearAddr, l.far: farAddr} {
		commands = append(commands,
			"ip -n "+ns+" addr add "+addr+"/24 dev eth0", "ip -n "+ns+" link set lo up", "ip -n "+ns+" link set eth0 up",
			// As lab.Shape: the burst holds the largest segment, 50 ms of queue
			// are what a switch port would hold.
			"tc -n "+ns+" qdisc replace dev eth0 root tbf rate "+rate+" burst 128kb latency 50ms")
	}
	for _, c := range commands {
		words := strings.Fields(c)
		if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
			l.close()
			return nil, fmt.Errorf("%s: %w: %s", c, err, out)
		}
	}
	return l, nil
}

func (l *link) close() {
	for _, ns := range []string{l.near, l.far} {
		_ = exec.Command("ip", "netns", "del", ns).Run() // it may not have come to be
	}
}

// enter are the words that run a program in a namespace, see lab.Host.Enter.
func enter(namespace string) []string {
	return []string{"nsenter", "--net=/run/netns/" + namespace, "--"}
}
