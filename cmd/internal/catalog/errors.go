package catalog

import (
	"errors"
	"strings"
	"unicode"
)

// The ways to fail. An error of this package wraps exactly one of them, but for
// a payload that cannot be read, see Client.Publish. The exit code stands
// behind each.
var (
	ErrUsage          = errors.New("bad argument")                    // 64: the word or an origin's URL makes no sense
	ErrBadAnswer      = errors.New("bad answer")                      // 65: something answered, and not as an origin does
	ErrUnknownRelease = errors.New("unknown release")                 // 66: no origin that answered has it, or no such file
	ErrUnreachable    = errors.New("no origin available")             // 69: none answers, or none can just now; Resolve tries again
	ErrConflict       = errors.New("VERSION exists with other bytes") // 73: see Client.Publish
	ErrUnauthorized   = errors.New("not authorised")                  // 77: the token is missing or wrong
)

// errPayload is the kind of a failure that is not about an origin at all.
var errPayload = errors.New("the payload cannot be read")

// nextStep says what a person can try.
var nextStep = map[error]string{
	ErrBadAnswer:      "check that the URL is that of a dcfs origin of this version",
	ErrUnknownRelease: "`dcfs ls --origin URL` lists what an origin has",
	ErrUnreachable:    "check that `dcfs origin` runs there and that no firewall stands between",
	ErrConflict:       "publish under another VERSION",
	ErrUnauthorized:   "give the origin's token with --publish-token-file",
}

// rank orders what several origins answered: the first that occurs is the
// sentinel of the whole. An origin that is down hides nothing that another
// one said.
var rank = []error{errPayload, ErrUsage, ErrConflict, ErrUnauthorized, ErrUnknownRelease, ErrBadAnswer, ErrUnreachable}

// failure is why one origin did not give what was asked.
type failure struct {
	kind   error // one of the sentinels
	detail error
	hint   string // the origin's own word on what to try, if any
}

// Error names the detail only; originsError says the kind once for all.
func (f *failure) Error() string { return f.detail.Error() }

// Unwrap returns the kind and the detail.
func (f *failure) Unwrap() []error { return []error{f.kind, f.detail} }

func fail(kind, detail error) error { return &failure{kind: kind, detail: detail} }

// attempt is one origin's failure.
type attempt struct {
	origin string
	err    error
}

// originsError is what all origins that were asked said.
type originsError struct {
	what     string // what was tried, such as "release web-1"
	kind     error
	attempts []attempt
}

func newOriginsError(what string, attempts []attempt) error {
	e := &originsError{what: what, kind: ErrUnreachable, attempts: attempts}
	for _, kind := range rank {
		for _, a := range attempts {
			if errors.Is(a.err, kind) {
				e.kind = kind
				return e
			}
		}
	}
	return e
}

// Error says what failed, why at each origin, and what to try.
func (e *originsError) Error() string {
	var b strings.Builder
	b.WriteString(e.what + ": " + e.kind.Error())
	hint := nextStep[e.kind]
	for _, a := range e.attempts {
		b.WriteString("; " + a.origin + ": " + a.err.Error())
		var f *failure
		if errors.As(a.err, &f) && f.kind == e.kind && f.hint != "" {
			hint = f.hint
		}
	}
	if hint != "" {
		b.WriteString(" (" + hint + ")")
	}
	return b.String()
}

// Unwrap returns the one sentinel and the details, such as context.Canceled,
// but not the sentinels of single origins.
func (e *originsError) Unwrap() []error {
	out := []error{e.kind}
	for _, a := range e.attempts {
		var f *failure
		if errors.As(a.err, &f) {
			out = append(out, f.detail)
		}
	}
	return out
}

// clip makes text of unknown origin fit to be shown on a terminal.
func clip(s string) string {
	const most = 300
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, strings.ToValidUTF8(s, "?"))
}
