package tracker

import (
	"bytes"
	"encoding/binary"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"time"
)

// Bencode (BEP 3) is written by hand: five shapes, no reflection, and the
// order of the keys is plain to see. Keys must be in byte order.

func appendInt(b []byte, n int64) []byte {
	b = append(b, 'i')
	b = strconv.AppendInt(b, n, 10)
	return append(b, 'e')
}

func appendString[S string | []byte](b []byte, s S) []byte {
	b = strconv.AppendInt(b, int64(len(s)), 10)
	b = append(b, ':')
	return append(b, s...)
}

func appendFailure(b []byte, reason string) []byte {
	b = append(b, 'd')
	b = appendString(b, "failure reason")
	b = appendString(b, reason)
	return append(b, 'e')
}

// appendCounts writes the three keys that sort before every other key of an
// announce answer and make up a whole scrape entry.
func appendCounts(b []byte, c counts) []byte {
	b = appendInt(appendString(b, "complete"), int64(c.complete))
	b = appendInt(appendString(b, "downloaded"), c.downloaded)
	return appendInt(appendString(b, "incomplete"), int64(c.incomplete))
}

func (t *Tracker) appendAnnounce(b []byte, a *announce, res result) []byte {
	b = append(b, 'd')
	b = appendCounts(b, res.counts)
	b = appendInt(appendString(b, "interval"), seconds(t.cfg.Interval))
	b = appendInt(appendString(b, "min interval"), seconds(t.cfg.MinInterval))
	peers := a.reachable(res.peers)
	if a.compact {
		b = appendCompact(b, peers)
	} else {
		b = appendPeerList(appendString(b, "peers"), peers, a.noID)
	}
	return append(b, 'e')
}

// reachable turns each address into one that the asker can dial, in place, and
// leaves out those for which there is none. A peer that announced over loopback
// lives on this host; to an asker on another host it is at the address where
// that asker reached us. An address that then is the asker's own is no use.
func (a *announce) reachable(peers []contact) []contact {
	kept := peers[:0]
	for _, c := range peers {
		if c.addr.Addr().IsLoopback() && !a.remote.IsLoopback() {
			c.addr = netip.AddrPortFrom(a.local, c.addr.Port())
		}
		if c.addr.IsValid() && c.addr != a.addr {
			kept = append(kept, c)
		}
	}
	return kept
}

// appendCompact writes peers (BEP 23) and, when there are any, peers6 (BEP 7).
func appendCompact(b []byte, peers []contact) []byte {
	var v4, v6 []byte
	for _, c := range peers {
		ip := c.addr.Addr()
		if ip.Is4() {
			v4 = binary.BigEndian.AppendUint16(append(v4, ip.AsSlice()...), c.addr.Port())
		} else {
			v6 = binary.BigEndian.AppendUint16(append(v6, ip.AsSlice()...), c.addr.Port())
		}
	}
	b = appendString(appendString(b, "peers"), v4)
	if len(v6) > 0 {
		b = appendString(appendString(b, "peers6"), v6)
	}
	return b
}

// appendPeerList writes peers in BEP 3's dictionary form.
func appendPeerList(b []byte, peers []contact, noID bool) []byte {
	b = append(b, 'l')
	for _, c := range peers {
		b = append(b, 'd')
		b = appendString(appendString(b, "ip"), c.addr.Addr().String())
		if !noID && c.id != [20]byte{} { // Config.Seed gives none
			b = appendString(appendString(b, "peer id"), c.id[:])
		}
		b = appendInt(appendString(b, "port"), int64(c.addr.Port()))
		b = append(b, 'e')
	}
	return append(b, 'e')
}

// seconds rounds up: an interval of 0 would mean "at once" to a client.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

const maxScrape = 100

func (t *Tracker) scrape(r *http.Request) ([]byte, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, refusal("the query is malformed")
	}
	hashes, err := scrapeHashes(values["info_hash"])
	if err != nil {
		return nil, err
	}
	now := t.cfg.Now()
	b := appendString([]byte("d"), "files")
	b = append(b, 'd')
	for _, h := range hashes {
		if !t.cfg.Allow(h) {
			continue
		}
		b = append(appendString(b, h[:]), 'd')
		b = append(appendCounts(b, t.count(h, now)), 'e')
	}
	return append(b, 'e', 'e'), nil
}

// scrapeHashes returns the infohashes in byte order, each once, as the keys of
// a dictionary must be.
func scrapeHashes(values []string) ([][20]byte, error) {
	if len(values) == 0 {
		return nil, refusal("info_hash is missing")
	}
	if len(values) > maxScrape {
		return nil, refusal("too many info_hash in one scrape")
	}
	hashes := make([][20]byte, len(values))
	for i, v := range values {
		if len(v) != len(hashes[i]) {
			return nil, refusal("info_hash must be 20 bytes, URL-escaped")
		}
		copy(hashes[i][:], v)
	}
	slices.SortFunc(hashes, func(x, y [20]byte) int { return bytes.Compare(x[:], y[:]) })
	return slices.Compact(hashes), nil
}

// count returns a swarm's numbers, all 0 when there is no swarm.
func (t *Tracker) count(infohash [20]byte, now time.Time) counts {
	s, _ := t.swarm(infohash, false, now) // without create there is no error
	if s == nil {
		return counts{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire(now.Add(-t.cfg.Expiry))
	return s.counts()
}
