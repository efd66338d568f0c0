package control

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// FuzzAsk: whatever answers on a socket, Ask returns a status of our schema or
// an error.
func FuzzAsk(f *testing.F) {
	for _, s := range []string{
		`{"schema":1,"state":"mounted","pid":7}`, `{"schema":2}`, `{"schema":1,"waiting":[{"path":"\ud800"}]}`, `{"schema":1,"bytes":1e400}`,
		`[`, ``, `null`, `{"schema":1}{"schema":1}`, "\x00\xff",
	} {
		f.Add([]byte(s))
	}
	dir, err := os.MkdirTemp("", "fuzz-ask-") // short: it is a socket's path
	if err != nil {
		f.Fatal(err)
	}
	path := filepath.Join(dir, "1.sock")
	lis, err := net.Listen("unix", path)
	if err != nil {
		f.Fatal(err)
	}
	var body atomic.Pointer[[]byte]
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(*body.Load()) })}
	done := make(chan struct{})
	go func() { defer close(done); server.Serve(lis) }()
	f.Cleanup(func() { server.Close(); <-done; os.RemoveAll(dir) })
	f.Fuzz(func(t *testing.T, b []byte) {
		body.Store(&b)
		s, err := Ask(context.Background(), path, 10*time.Second)
		if err == nil && s.Schema != Schema {
			t.Fatalf("schema %d", s.Schema)
		}
	})
}
