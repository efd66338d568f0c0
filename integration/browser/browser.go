// Package browser drives a headless Chromium over its debugging pipe, for tests
// of pages: it opens a page, runs expressions in it, takes pictures, and says
// what the page complained of.
//
// It must never reach a network by itself, nor leave a process or a profile
// behind.
package browser

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// Program is the browser's name on PATH.
const Program = "chromium"

// patience bounds one command to the browser.
const patience = 30 * time.Second

// maxComplaints bounds what is remembered of a page's complaints.
const maxComplaints = 100

// Browser is a running browser with one page. Its methods may be called from
// one goroutine.
type Browser struct {
	Patience time.Duration // of Until

	t       testing.TB
	cmd     *exec.Cmd
	in      *os.File // commands to it
	out     *os.File // answers and events of it
	session string
	next    int

	mu         sync.Mutex
	waiting    map[int]chan message
	complaints []string
	gone       chan struct{} // closed when it sends no more
}

// message is one of the protocol's: a command, its answer, or an event.
type message struct {
	ID      int             `json:"id,omitempty"`
	Session string          `json:"sessionId,omitempty"`
	Method  string          `json:"method,omitempty"`
	Params  json.RawMessage `json:"params,omitempty"`
	Result  json.RawMessage `json:"result,omitempty"`
	Error   *struct {
		Message string `json:"message"`
	} `json:"error,omitempty"`
}

// Start starts a browser, by a function that makes the command, such as
// Host.Command of a lab. It ends with the test.
func Start(t testing.TB, command func(ctx context.Context, name string, args ...string) *exec.Cmd) *Browser {
	t.Helper()
	b := &Browser{Patience: patience, t: t, waiting: make(map[int]chan message), gone: make(chan struct{})}
	profile := filepath.Join(t.TempDir(), "profile")
	b.cmd = command(context.Background(), Program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
		"--remote-debugging-pipe", "--no-first-run", "--disable-background-networking", "--disable-component-update",
		"--hide-scrollbars", "--user-data-dir="+profile, "about:blank")
	commands, in, err := os.Pipe()
	b.check(err)
	out, answers, err := os.Pipe()
	b.check(err)
	b.in, b.out, b.cmd.ExtraFiles = in, out, []*os.File{commands, answers}
	err = b.cmd.Start()
	commands.Close()
	answers.Close()
	b.check(err)
	go b.listen()
	t.Cleanup(b.close)
	b.attach()
	return b
}

func (b *Browser) check(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatalf("the browser: %v", err)
	}
}

// attach joins the first page.
func (b *Browser) attach() {
	b.t.Helper()
	var made struct {
		TargetID string `json:"targetId"`
	}
	b.call("Target.createTarget", map[string]any{"url": "about:blank"}, &made)
	var joined struct {
		SessionID string `json:"sessionId"`
	}
	b.call("Target.attachToTarget", map[string]any{"targetId": made.TargetID, "flatten": true}, &joined)
	b.session = joined.SessionID
	for _, domain := range []string{"Page", "Runtime", "Log"} {
		b.call(domain+".enable", nil, nil)
	}
}

// listen reads what the browser sends until it ends.
func (b *Browser) listen() {
	defer close(b.gone)
	r := bufio.NewReader(b.out)
	for {
		raw, err := r.ReadBytes(0)
		if err != nil {
			return
		}
		var m message
		if json.Unmarshal(raw[:len(raw)-1], &m) != nil {
			continue
		}
		b.mu.Lock()
		if answer := b.waiting[m.ID]; m.ID != 0 && answer != nil {
			delete(b.waiting, m.ID)
			answer <- m // it has room for one
		}
		if m.Method == "Runtime.exceptionThrown" || m.Method == "Log.entryAdded" || m.Method == "Page.javascriptDialogOpening" {
			if len(b.complaints) < maxComplaints {
				b.complaints = append(b.complaints, string(m.Params))
			}
		}
		b.mu.Unlock()
	}
}

// call runs one command of the protocol.
func (b *Browser) call(method string, params, result any) {
	b.t.Helper()
	m, err := b.try(method, params)
	b.check(err)
	if result != nil {
		b.check(json.Unmarshal(m.Result, result))
	}
}

func (b *Browser) try(method string, params any) (message, error) {
	b.next++
	m, answer := message{ID: b.next, Session: b.session, Method: method}, make(chan message, 1)
	if params != nil {
		m.Params, _ = json.Marshal(params)
	}
	raw, err := json.Marshal(m)
	if err != nil {
		return m, err
	}
	b.mu.Lock()
	b.waiting[m.ID] = answer
	b.mu.Unlock()
	if _, err := b.in.Write(append(raw, 0)); err != nil {
		return m, err
	}
	select {
	case got := <-answer:
		if got.Error != nil {
			return got, fmt.Errorf("%s: %s", method, got.Error.Message)
		}
		return got, nil
	case <-b.gone:
		return m, errors.New(method + ": the browser has ended")
	case <-time.After(patience):
		return m, errors.New(method + ": no answer")
	}
}

// Screen is what the page is shown on. Width and Height are in CSS pixels.
type Screen struct {
	Width, Height int
	Scale         float64
	Mobile, Dark  bool
}

// Show sets the screen.
func (b *Browser) Show(s Screen) {
	b.t.Helper()
	scheme := "light"
	if s.Dark {
		scheme = "dark"
	}
	b.call("Emulation.setDeviceMetricsOverride", map[string]any{
		"width": s.Width, "height": s.Height, "deviceScaleFactor": s.Scale, "mobile": s.Mobile}, nil)
	b.call("Emulation.setEmulatedMedia", map[string]any{
		"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}}, nil)
}

// Open goes to a page. It does not wait for it: Until does.
func (b *Browser) Open(url string) {
	b.t.Helper()
	b.call("Page.navigate", map[string]any{"url": url}, nil)
}

// Eval runs a JavaScript expression in the page and reads its value.
func (b *Browser) Eval(expression string, value any) {
	b.t.Helper()
	var r struct {
		Result struct {
			Value json.RawMessage `json:"value"`
		} `json:"result"`
		Exception json.RawMessage `json:"exceptionDetails"`
	}
	b.call("Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true, "awaitPromise": true}, &r)
	if r.Exception != nil {
		b.t.Fatalf("%s: %s", expression, r.Exception)
	}
	if value != nil {
		b.check(json.Unmarshal(r.Result.Value, value))
	}
}

// Until waits until an expression is true, and fails the test when that takes
// too long.
func (b *Browser) Until(expression string) {
	b.t.Helper()
	for deadline := time.Now().Add(b.Patience); ; time.Sleep(50 * time.Millisecond) {
		var ok bool
		// Before the page is there, most expressions throw.
		if b.Eval("(() => { try { return Boolean("+expression+") } catch { return false } })()", &ok); ok {
			return
		}
		if time.Now().After(deadline) {
			var text string
			b.Eval("document.body.innerText", &text)
			b.t.Fatalf("never true: %s\ncomplaints: %q\nthe page:\n%s", expression, b.Complaints(), text)
		}
	}
}

// Picture writes a picture of the screen, or of the whole page, as PNG.
func (b *Browser) Picture(file string, whole bool) {
	b.t.Helper()
	var r struct {
		Data string `json:"data"`
	}
	b.call("Page.captureScreenshot", map[string]any{"format": "png", "captureBeyondViewport": whole}, &r)
	raw, err := base64.StdEncoding.DecodeString(r.Data)
	b.check(err)
	b.check(os.WriteFile(file, raw, 0o644))
}

// Complaints are the errors of scripts, of the content policy and of requests,
// and dialogs.
func (b *Browser) Complaints() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.complaints...)
}

// close ends the browser, which takes its own processes with it.
func (b *Browser) close() {
	b.session = ""
	_, _ = b.try("Browser.close", nil) // one that hangs is killed
	done := make(chan struct{})
	go func() { _ = b.cmd.Wait(); close(done) }() // killed is no news
	select {
	case <-done:
	case <-time.After(patience):
		_ = b.cmd.Process.Kill()
		<-done
	}
	b.in.Close()
	<-b.gone // before: it must not read a closed file
	b.out.Close()
}
