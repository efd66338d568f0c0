package tree

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"testing"
)

// large is like a source tree of 500,000 entries.
func large(b *testing.B) *Tree {
	var nodes []Node
	for d := range 25_000 {
		p := fmt.Sprintf("pkg%03d", d/100)
		if d%100 == 0 {
			nodes = append(nodes, Node{Path: p, Kind: Dir, Mode: 0o755})
		}
		p = fmt.Sprintf("%s/module-%05d", p, d)
		nodes = append(nodes, Node{Path: p, Kind: Dir, Mode: 0o755, Mtime: 1_700_000_000e9 + int64(d)*997})
		for i := range 19 {
			name := fmt.Sprintf("%s/file_%x.go", p, sha256.Sum256([]byte{byte(d), byte(d >> 8), byte(i)}))
			sum := sha256.Sum256([]byte(name))
			nodes = append(nodes, Node{
				Path: name[:len(p)+14+i%9] + ".go", Kind: File, Mode: 0o644, Sum: sum,
				Mtime: 1_700_000_000e9 + int64(binary.LittleEndian.Uint32(sum[:])), Size: int64(sum[0]) * 100,
			})
		}
	}
	t, err := Build(nodes, Plan{})
	if err != nil {
		b.Fatal(err)
	}
	return t
}

func BenchmarkEncode(b *testing.B) {
	t := large(b)
	for b.Loop() {
		b.ReportMetric(float64(len(Encode(t))), "bytes")
	}
}

func BenchmarkDecode(b *testing.B) {
	enc := Encode(large(b))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(enc); err != nil {
			b.Fatal(err)
		}
	}
}
