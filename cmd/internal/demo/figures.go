package demo

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
)

// Figures is what a run measured.
type Figures struct {
	Files   int
	Bytes   int64 // of the release's payload
	Pieces  int
	Publish time.Duration
	Mounted bool // false: the nodes fetched

	Entries  int           // seen by a walk through the first mount
	Walk     time.Duration // of that walk, each entry statted
	LazyRead time.Duration // of a read whose bytes were not there
	LazyHave float64       // the share of the bytes that was there then, 0 to 1

	Nodes        []Node
	OriginCopies float64 // what the origin sent, in sizes of the payload
}

// Node is what one node measured. Times count from its start.
type Node struct {
	Name           string
	Ready          time.Duration // mounted, or complete without a mount
	Copy           time.Duration // copy synced and link swapped
	Received, Sent int64         // bytes of payload, from and to peers
	Verified       bool
}

// sum fills in what follows from the nodes: what they received and no node
// sent, the origin did.
func (f *Figures) sum() {
	var net int64
	for _, n := range f.Nodes {
		net += n.Received - n.Sent
	}
	if f.Bytes > 0 {
		f.OriginCopies = float64(max(net, 0)) / float64(f.Bytes)
	}
}

// Print writes the figures as a table.
func (f Figures) Print(w io.Writer) error {
	ready := "COMPLETE"
	if f.Mounted {
		ready = "MOUNTED"
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintf(t, "NODE\t%s\tCOPY+LINK\tRECEIVED\tSENT\tVERIFIED\n", ready)
	for _, n := range f.Nodes {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%t\n", n.Name, short(n.Ready), short(n.Copy),
			size(n.Received), size(n.Sent), n.Verified)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	t = tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintf(t, "\nrelease\t%d files, %s, %d pieces, published in %s\n",
		f.Files, size(f.Bytes), f.Pieces, short(f.Publish))
	if f.Mounted {
		fmt.Fprintf(t, "walk of the mount\t%d entries in %s\n", f.Entries, short(f.Walk))
		fmt.Fprintf(t, "lazy read\t%s, when %.0f%% of the bytes were there\n", short(f.LazyRead), 100*f.LazyHave)
	}
	fmt.Fprintf(t, "sent by the origin\t%.2f copies, for %d nodes\n", f.OriginCopies, len(f.Nodes))
	return t.Flush()
}

// MarshalJSON writes the figures in schema 1: sizes in bytes, times in ms.
func (f Figures) MarshalJSON() ([]byte, error) {
	type node struct {
		Name     string `json:"name"`
		ReadyMS  int64  `json:"ready_ms"`
		CopyMS   int64  `json:"copy_ms"`
		Received int64  `json:"bytes_fetched"`
		Sent     int64  `json:"bytes_uploaded"`
		Verified bool   `json:"verified"`
	}
	nodes := []node{}
	for _, n := range f.Nodes {
		nodes = append(nodes, node{n.Name, n.Ready.Milliseconds(), n.Copy.Milliseconds(), n.Received, n.Sent, n.Verified})
	}
	return json.Marshal(struct {
		Schema       int     `json:"schema"`
		Files        int     `json:"files"`
		Bytes        int64   `json:"bytes"`
		Pieces       int     `json:"pieces"`
		PublishMS    int64   `json:"publish_ms"`
		Mounted      bool    `json:"mounted"`
		Entries      int     `json:"entries"`
		WalkMS       int64   `json:"walk_ms"`
		LazyReadMS   int64   `json:"lazy_read_ms"`
		LazyHave     float64 `json:"lazy_have"`
		OriginCopies float64 `json:"origin_copies"`
		Nodes        []node  `json:"nodes"`
	}{1, f.Files, f.Bytes, f.Pieces, f.Publish.Milliseconds(), f.Mounted, f.Entries, f.Walk.Milliseconds(),
		f.LazyRead.Milliseconds(), f.LazyHave, f.OriginCopies, nodes})
}

func size(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }

func short(d time.Duration) string {
	if d < time.Second {
		return d.Round(100 * time.Microsecond).String()
	}
	return d.Round(10 * time.Millisecond).String()
}

func share(part, all int64) float64 {
	if all <= 0 {
		return 0
	}
	return float64(part) / float64(all)
}
