package main

import (
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	const passed = `{"Action":"start","Package":"p"}
{"Action":"output","Package":"p","Test":"TestA","Output":"chatter\n"}
{"Action":"pass","Package":"p","Test":"TestA","Elapsed":0.1}
{"Action":"pass","Package":"p","Elapsed":1.5}
`
	for _, tc := range []struct {
		name, in string
		ok       bool
		want     []string
		wantNot  string
	}{
		{"pass", passed, true, []string{"ok   p 1.5s"}, "chatter"},
		{"slow", `{"Action":"pass","Package":"p","Test":"TestA","Elapsed":61}`, true, []string{"TestA 61.0s"}, ""},
		{"fail", `{"Action":"output","Package":"p","Test":"TestA","Output":"wrong byte\n"}
{"Action":"fail","Package":"p","Test":"TestA"}
{"Action":"fail","Package":"p"}`, false, []string{"wrong byte", "FAIL p"}, ""},
		{"skip", `{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN TestA\n"}
{"Action":"output","Package":"p","Test":"TestA","Output":"    x_test.go:1: skipped: no FUSE\n"}
{"Action":"skip","Package":"p","Test":"TestA"}`, true, []string{"skipped: 1", "p TestA: x_test.go:1: skipped: no FUSE"}, "RUN"},
		{"panic", `{"Action":"start","Package":"p"}
{"Action":"output","Package":"p","Test":"TestA","Output":"goroutine 1\n"}
{"Action":"fail","Package":"p"}`, false, []string{"unfinished TestA", "goroutine 1"}, ""},
		{"cut off", `{"Action":"start","Package":"p"}`, false, []string{"ended in the middle"}, ""},
		{"build", `{"Action":"build-output","ImportPath":"p","Output":"x.go:1: undefined\n"}
{"Action":"build-fail","ImportPath":"p"}`, false, []string{"undefined"}, ""},
		{"not JSON", "no such tool", false, []string{"no such tool"}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out strings.Builder
			r := report{w: &out, output: map[string][]string{}, open: map[string]bool{}}
			if ok := r.read(strings.NewReader(tc.in)); ok != tc.ok {
				t.Errorf("ok = %v", ok)
			}
			for _, want := range tc.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("no %q in:\n%s", want, out.String())
				}
			}
			if tc.wantNot != "" && strings.Contains(out.String(), tc.wantNot) {
				t.Errorf("%q in:\n%s", tc.wantNot, out.String())
			}
		})
	}
}
