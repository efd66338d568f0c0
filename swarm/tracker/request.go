package tracker

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
)

const (
	defaultWant = 50
	maxWant     = 200
	maxRack     = 64 // bytes of a rack's name
)

type event uint8

const (
	eventNone event = iota
	eventStarted
	eventCompleted
	eventStopped
)

// paused is BEP 21's word for a partial seed; it is a peer like any other here.
var events = map[string]event{
	"": eventNone, "empty": eventNone, "paused": eventNone,
	"started": eventStarted, "completed": eventCompleted, "stopped": eventStopped,
}

// announce is one parsed and checked announce.
type announce struct {
	infohash, id [20]byte
	addr         netip.AddrPort // where others reach the peer
	remote       netip.Addr     // where the request came from
	local        netip.Addr     // where it reached us; not valid when unknown
	event        event

	uploaded, downloaded, left int64 // bytes; left is 0 for a seed
	want                       int   // peers wanted, 0..maxWant
	compact, noID              bool
	rack                       string // "" for none
}

// parseAnnounce reads an announce out of a request. Every error is a refusal.
func parseAnnounce(r *http.Request, trustIP bool) (*announce, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, refusal("the query is malformed")
	}
	a, q := &announce{}, query{values: values}
	a.infohash = q.bytes20("info_hash")
	a.id = q.bytes20("peer_id")
	port := q.port()
	a.uploaded = q.size("uploaded", 0)
	a.downloaded = q.size("downloaded", 0)
	a.left = q.size("left", -1)
	a.want = q.want()
	a.event = q.event()
	a.compact = q.one("compact") != "0"
	a.noID = q.one("no_peer_id") == "1"
	if a.rack = q.one("rack"); len(a.rack) > maxRack {
		q.fail("rack must have at most " + strconv.Itoa(maxRack) + " bytes")
	}
	if q.err != nil {
		return nil, q.err
	}
	if a.remote, err = remoteAddr(r.RemoteAddr); err != nil {
		return nil, err
	}
	a.local = localAddr(r)
	a.addr = netip.AddrPortFrom(a.remote, port)
	if trustIP || a.remote.IsLoopback() {
		return a, a.claimAddr(values)
	}
	return a, nil
}

// query reads parameters and keeps the first thing that is wrong.
type query struct {
	values url.Values
	err    error
}

func (q *query) fail(reason string) {
	if q.err == nil {
		q.err = refusal(reason)
	}
}

// one returns the only value of a parameter, and "" when it is absent. A
// parameter given twice is refused: two readers could take different ones.
func (q *query) one(key string) string {
	v := q.values[key]
	if len(v) > 1 {
		q.fail(key + " is given more than once")
	}
	if len(v) == 0 {
		return ""
	}
	return v[0]
}

func (q *query) bytes20(key string) (out [20]byte) {
	v := q.one(key)
	switch {
	case v == "":
		q.fail(key + " is missing")
	case len(v) != len(out):
		q.fail(key + " must be 20 bytes, URL-escaped")
	}
	copy(out[:], v)
	return out
}

func (q *query) port() uint16 {
	n, err := strconv.ParseUint(q.one("port"), 10, 16)
	if err != nil || n == 0 {
		q.fail("port must be a number from 1 to 65535")
	}
	return uint16(n)
}

// size reads a number of bytes; absent is what an absent one means. Without
// left a client is a leecher: it may not know yet what it lacks (BEP 9).
func (q *query) size(key string, absent int64) int64 {
	v := q.one(key)
	if v == "" {
		return absent
	}
	n, err := strconv.ParseUint(v, 10, 63)
	if err != nil {
		q.fail(key + " must be a number of bytes from 0 to 9223372036854775807")
	}
	return int64(n)
}

// want reads numwant; clients send a negative number for "as you like".
func (q *query) want() int {
	v := q.one("numwant")
	if v == "" {
		return defaultWant
	}
	n, err := strconv.ParseInt(v, 10, 32)
	if err != nil {
		q.fail("numwant must be a number")
	}
	if n < 0 {
		return defaultWant
	}
	return min(int(n), maxWant)
}

func (q *query) event() event {
	e, ok := events[q.one("event")]
	if !ok {
		q.fail("event must be started, completed, stopped or absent")
	}
	return e
}

// remoteAddr reads net/http's RemoteAddr. An IPv4 peer of a dual-stack socket
// arrives as an IPv4-mapped IPv6 address and is an IPv4 peer; a zone means
// nothing to other hosts.
func remoteAddr(s string) (netip.Addr, error) {
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		return netip.Addr{}, refusal("the tracker cannot tell your address")
	}
	return ap.Addr().Unmap().WithZone(""), nil
}

// localAddr is the address at which the client reached this server.
func localAddr(r *http.Request) netip.Addr {
	tcp, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return tcp.AddrPort().Addr().Unmap().WithZone("")
}

// claimAddr takes the address that a trusted client gives for itself. The
// first of ip, ipv4 and ipv6 wins; ipv4 and ipv6 may carry a port (BEP 7).
// Clients repeat ip, so more than one value is no error here.
func (a *announce) claimAddr(values url.Values) error {
	for _, key := range []string{"ip", "ipv4", "ipv6"} {
		v := values.Get(key)
		if v == "" {
			continue
		}
		ap, err := parseEndpoint(v, a.addr.Port())
		if err != nil {
			return refusal(key + " must be an IP address")
		}
		ip := ap.Addr()
		if ip.IsUnspecified() || ip.IsMulticast() || ap.Port() == 0 {
			return refusal(key + " is not an address that a peer can have")
		}
		if ip.IsLoopback() && !a.remote.IsLoopback() {
			return refusal(key + " is a loopback address, and you are on another host")
		}
		a.addr = ap
		return nil
	}
	return nil
}

// parseEndpoint reads ADDR or ADDR:PORT.
func parseEndpoint(s string, port uint16) (netip.AddrPort, error) {
	ip, err := netip.ParseAddr(s)
	if err != nil {
		ap, err := netip.ParseAddrPort(s)
		if err != nil {
			return netip.AddrPort{}, err
		}
		ip, port = ap.Addr(), ap.Port()
	}
	return netip.AddrPortFrom(ip.Unmap().WithZone(""), port), nil
}
