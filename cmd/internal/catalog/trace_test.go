package catalog

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestTraces(t *testing.T) {
	given, answer := "", `{"schema":1,"taken":true}`
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path != "/v1/releases/app/web.trace":
			w.WriteHeader(http.StatusNotFound)
		case r.Method == http.MethodGet:
			_, _ = io.WriteString(w, "a trace")
		case r.Header.Get("Authorization") != "Bearer secret":
			w.WriteHeader(http.StatusForbidden)
		default:
			raw, _ := io.ReadAll(r.Body)
			given = string(raw)
			_, _ = io.WriteString(w, answer)
		}
	}))
	defer srv.Close()
	c := &Client{Origins: []string{srv.URL}, Token: "secret"}
	defer c.Close()
	if got, err := c.Trace(t.Context(), "app/web", 100); err != nil || string(got) != "a trace" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := c.Trace(t.Context(), "app/web", 3); !errors.Is(err, ErrBadAnswer) {
		t.Errorf("longer than the limit: %v", err)
	}
	if _, err := c.Trace(t.Context(), "none", 100); !errors.Is(err, ErrUnknownRelease) {
		t.Errorf("none there: %v", err)
	}
	if taken, err := c.PutTrace(t.Context(), "app/web", []byte("mine")); err != nil || !taken || given != "mine" {
		t.Errorf("taken %v, %v, given %q", taken, err, given)
	}
	answer = `{"schema":1,"taken":false}`
	if taken, err := c.PutTrace(t.Context(), "app/web", []byte("mine")); err != nil || taken {
		t.Errorf("taken %v, %v", taken, err)
	}
	answer = "<html>"
	if _, err := c.PutTrace(t.Context(), "app/web", []byte("mine")); !errors.Is(err, ErrBadAnswer) {
		t.Errorf("no answer of an origin: %v", err)
	}
	stranger := &Client{Origins: []string{srv.URL}}
	defer stranger.Close()
	if _, err := stranger.PutTrace(t.Context(), "app/web", nil); !errors.Is(err, ErrUnauthorized) {
		t.Errorf("without the token: %v", err)
	}
}
