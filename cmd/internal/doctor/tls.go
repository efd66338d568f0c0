package doctor

import (
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"dcfs/swarm/gate"
)

// expiryWarn is how long before its end a certificate has to be renewed at the
// latest; one with a short life, when a quarter of that is left.
const expiryWarn = 14 * 24 * time.Hour

// certificate looks at the files of --peer-tls; the identity is nil when they
// cannot be used, or there are none.
func certificate(dir string) (*gate.Identity, []Finding) {
	if dir == "" {
		return nil, nil
	}
	id, err := gate.LoadIdentity(dir, false, nil)
	if err != nil {
		return nil, []Finding{{TLS, Fail, err.Error(), "issue a new certificate for this host: docs/security.md says how"}}
	}
	from, to := id.Validity()
	found := []Finding{expiry(id.Subject(), from, to, time.Now())}
	if key := worldReadable(dir); key != "" {
		found = append(found, Finding{TLS, Warn, "everybody on this host can read " + key, "chmod 600 " + key})
	}
	return id, found
}

func expiry(subject string, from, to, now time.Time) Finding {
	left := to.Sub(now)
	text := fmt.Sprintf("the certificate of %s expires in %s, on %s", subject, days(left), to.UTC().Format(time.RFC3339))
	if left < min(expiryWarn, to.Sub(from)/4) {
		return Finding{TLS, Warn, text, "renew it: the new files are taken without a restart"}
	}
	return Finding{TLS, OK, text, ""}
}

func days(d time.Duration) string {
	if d >= 48*time.Hour {
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	}
	return d.Round(time.Minute).String()
}

// worldReadable returns the key file if others than its owner and group can
// read it.
func worldReadable(dir string) string {
	for _, name := range []string{"key.pem", "tls.key"} {
		var st unix.Stat_t
		path := filepath.Join(dir, name)
		if unix.Stat(path, &st) == nil {
			if st.Mode&0o004 != 0 {
				return path
			}
			return ""
		}
	}
	return ""
}
