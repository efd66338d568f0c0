package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// parse reads the text of a configuration file: one mapping of settings to
// plain values. It walks the document itself rather than decode it into a
// struct, so that every error has a line and speaks of keys, and nothing of
// YAML gets in that nobody needs here: anchors, merges, tags, documents.
func parse(data []byte) (File, error) {
	f := File{text: make(map[string]string)}
	doc, err := parser.ParseBytes(data, 0)
	if err != nil {
		var y yaml.Error
		if errors.As(err, &y) && y.GetToken() != nil {
			return f, fmt.Errorf("line %d: no YAML: %s", y.GetToken().Position.Line, y.GetMessage())
		}
		return f, fmt.Errorf("no YAML: %w", err)
	}
	for i, d := range doc.Docs {
		if d.Body == nil {
			continue
		}
		if i > 0 {
			return f, fmt.Errorf("line %d: a second document: want one", line(d.Body))
		}
		if err := f.takeBody(d.Body); err != nil {
			return f, err
		}
	}
	return f, nil
}

func line(n ast.Node) int {
	if t := n.GetToken(); t != nil && t.Position != nil {
		return t.Position.Line
	}
	return 0
}

func (f *File) takeBody(body ast.Node) error {
	switch body.Type() {
	case ast.CommentType, ast.NullType:
		return nil
	case ast.MappingType, ast.MappingValueType:
	default:
		return fmt.Errorf("line %d: want lines of the form `key: value`", line(body))
	}
	for it := body.(ast.MapNode).MapRange(); it.Next(); {
		if err := f.take(it.Key(), it.Value()); err != nil {
			return fmt.Errorf("line %d: %w", line(it.Key()), err)
		}
	}
	return nil
}

func (f *File) take(keyNode ast.MapKeyNode, value ast.Node) error {
	key, err := scalar(keyNode)
	if err != nil {
		return fmt.Errorf("a key must be a plain word")
	}
	set, known := settings[key]
	if !known {
		return fmt.Errorf("unknown key %q: %s", key, hint(key))
	}
	if _, twice := f.text[key]; twice {
		return fmt.Errorf("%s is there twice: keep one", key)
	}
	text, err := textOf(value, set.list)
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	if err := set.store(f, text); err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	f.text[key] = text
	return nil
}

// textOf returns a value as a flag would have it.
func textOf(value ast.Node, list bool) (string, error) {
	seq, isSeq := value.(*ast.SequenceNode)
	if !isSeq {
		return scalar(value)
	}
	if !list {
		return "", fmt.Errorf("want one value, not a list")
	}
	var parts []string
	for _, v := range seq.Values {
		s, err := scalar(v)
		if err != nil {
			return "", err
		}
		parts = append(parts, s)
	}
	return strings.Join(parts, ","), nil
}

// scalar returns a plain or quoted value as it was written.
func scalar(n ast.Node) (string, error) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, nil
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return n.GetToken().Value, nil
	case *ast.NullNode:
		return "", fmt.Errorf("it has no value: give one or remove the line")
	default:
		return "", fmt.Errorf("want a plain value")
	}
}

// hint says what an unknown key may have been meant to be.
func hint(key string) string {
	known := make([]string, 0, len(settings))
	for k := range settings {
		known = append(known, k)
	}
	slices.Sort(known)
	for _, k := range known {
		if distance(key, k) <= 2 {
			return fmt.Sprintf("did you mean %s?", k)
		}
	}
	return "the keys are " + strings.Join(known, ", ")
}

// distance is how many letters have to be changed, put in or left out to make
// b of a. Long keys are far from everything.
func distance(a, b string) int {
	if len(a) > 64 {
		return len(a)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, diagonal+1, row[j]+1)
		}
	}
	return row[len(b)]
}
