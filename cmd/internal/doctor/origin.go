package doctor

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"dcfs/swarm/gate"
)

// How far the clock may be from the origin's. A release that was signed more
// than five minutes in the future is refused.
const (
	skewWarn = 5 * time.Second
	skewFail = 5 * time.Minute
)

// originAt asks an origin whether it is well, looks at the time it names, and
// whether its usual peer port answers.
func originAt(ctx context.Context, base string, id *gate.Identity) []Finding {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tr := id.Secure(&http.Transport{DisableKeepAlives: true, DialContext: new(net.Dialer).DialContext}) // as dcfs: no proxy
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/healthz", nil)
	if err != nil {
		return []Finding{{Origin, Fail, base + ": " + err.Error(), "--origin http://HOST:7070"}}
	}
	began := time.Now()
	resp, err := tr.RoundTrip(req)
	took := time.Since(began)
	if err != nil {
		return []Finding{{Origin, Fail, base + " cannot be reached: " + err.Error(), "is dcfs origin running there, and is the port open to this host?"}}
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return []Finding{{Origin, Fail, base + " answers " + resp.Status, "the origin's log says more; is this an origin at all?"}}
	}
	out := []Finding{clock(resp.Header.Get("Date"), began.Add(took/2))}
	door := gate.Gate{Identity: id}
	if conn, err := door.Dial(ctx, peersOf(base)); err != nil {
		return append([]Finding{{Origin, Warn, base + " answers, and its peer port does not: " + err.Error(),
			"open 7071 from here; nothing to do if the origin has another --peer-listen"}}, out...)
	} else {
		conn.Close()
	}
	return append([]Finding{{Origin, OK, fmt.Sprintf("%s answers in %s, and its peer port does", base, took.Round(100*time.Microsecond)), ""}}, out...)
}

// clock compares this host's time with the Date of an answer.
func clock(date string, now time.Time) Finding {
	theirs, err := http.ParseTime(date)
	if err != nil {
		return Finding{Clock, Warn, "the origin names no time", ""}
	}
	off := now.Sub(theirs.Add(500 * time.Millisecond)) // Date has whole seconds
	text := fmt.Sprintf("%s from the origin's", off.Round(time.Second))
	switch d := off.Abs(); {
	case d >= skewFail:
		return Finding{Clock, Fail, text + ": signatures will seem to come from the future, or expired", "set the clocks: timedatectl, chronyc tracking"}
	case d >= skewWarn:
		return Finding{Clock, Warn, text, "set the clocks: timedatectl, chronyc tracking"}
	}
	return Finding{Clock, OK, text, ""}
}
