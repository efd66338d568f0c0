package swarm

import (
	"errors"
	"runtime"
	"strings"
	"testing"
)

func TestParseAnswerIsBounded(t *testing.T) {
	for name, s := range map[string]string{
		"lists":        "d5:peers" + strings.Repeat("l", maxReply),
		"dictionaries": strings.Repeat("d1:a", maxReply/4),
		"closed":       "d5:peers" + strings.Repeat("l", maxReply/2) + strings.Repeat("e", maxReply/2) + "e",
		"a string":     "d5:peers4294967295:x",
		"huge string":  "d5:peers99999999999:x",
		"too many e":   "e",
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := parseAnswer([]byte(s))
		runtime.ReadMemStats(&after)
		if !errors.Is(err, errNesting) {
			t.Errorf("%s: %v", name, err)
		}
		if used := after.Sys - before.Sys; used > 32<<20 {
			t.Errorf("%s: took %d bytes", name, used)
		}
	}
}
