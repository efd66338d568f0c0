package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// tidy puts a command line into the one order that cli understands: command,
// flags, "--", positionals. cli itself stops at the first positional, takes
// every flag behind it for a positional and says nothing; it lets unknown
// commands and surplus positionals pass, too. So all of that is decided here,
// before cli sees the line, and what cli sees cannot be misread.
func tidy(app *cli.App, args []string) ([]string, error) {
	line, err := split(app, args[1:])
	if err != nil {
		return nil, err
	}
	switch {
	case line.version:
		return []string{args[0], "version", "--json=" + fmt.Sprint(line.has("json"))}, nil
	case line.help:
		// Without positionals: cli would look for help on them.
		return append(append([]string{args[0]}, line.path...), "--help"), nil
	case line.cmd == nil:
		return nil, usage("no command given", "dcfs --help")
	}
	if err := line.check(); err != nil {
		return nil, err
	}
	out := append([]string{args[0]}, line.path...)
	out = append(out, line.flagArgs()...)
	return append(append(out, "--"), line.positionals...), nil
}

// line is a command line taken apart.
type line struct {
	app           *cli.App
	cmd           *cli.Command // nil until a command was named
	path          []string     // its name, with its parents'
	flags         []flagArg
	positionals   []string
	help, version bool
}

type flagArg struct {
	typed    string // as it stood on the command line, without a value
	name     string // without dashes
	value    string
	hasValue bool
}

func split(app *cli.App, args []string) (*line, error) {
	l := &line{app: app}
	takesValue := flagKinds(app.Commands)
	if c := guessCommand(app, args); c != nil {
		maps.Copy(takesValue, flagKinds([]*cli.Command{c}))
	}
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		if arg == "--" {
			l.positionals = append(l.positionals, args...)
			break
		}
		if !isFlag(arg) {
			if err := l.word(arg); err != nil {
				return nil, err
			}
			continue
		}
		f := parseFlag(arg)
		wants, known := takesValue[f.name]
		if known && wants && !f.hasValue {
			if len(args) == 0 || isKnownFlag(args[0], takesValue) {
				return nil, usage(fmt.Sprintf("flag %s needs a value", f.typed), l.helpCall())
			}
			f.value, f.hasValue = args[0], true
			args = args[1:]
		}
		l.flag(f)
	}
	return l, nil
}

// isFlag: a lone dash is a word, by custom standard input.
func isFlag(arg string) bool { return len(arg) > 1 && arg[0] == '-' }

func parseFlag(arg string) flagArg {
	typed, value, has := strings.Cut(arg, "=")
	name := strings.TrimPrefix(strings.TrimPrefix(typed, "-"), "-")
	return flagArg{typed: typed, name: name, value: value, hasValue: has}
}

func isKnownFlag(arg string, kinds map[string]bool) bool {
	if !isFlag(arg) {
		return false
	}
	_, known := kinds[parseFlag(arg).name]
	return known || arg == "--"
}

// guessCommand returns the command that the line will name, or nil: the first
// word that is one. It can only be wrong about a line that has a command's name
// as the value of a flag before the command, and then only about --keep.
func guessCommand(app *cli.App, args []string) *cli.Command {
	for _, arg := range args {
		if arg == "--" {
			return nil
		}
		if i := slices.IndexFunc(app.Commands, func(c *cli.Command) bool { return c.HasName(arg) }); i >= 0 {
			return app.Commands[i]
		}
	}
	return nil
}

// flagKinds says of every flag of the commands whether it takes a value. A name
// means the same in all commands but for --keep (a test holds us to it), which
// is why flags may even stand before the command.
func flagKinds(commands []*cli.Command) map[string]bool {
	kinds := map[string]bool{"help": false, "h": false, "version": false}
	for _, c := range commands {
		for _, f := range c.Flags {
			_, isBool := f.(*cli.BoolFlag)
			for _, name := range f.Names() {
				kinds[name] = !isBool
			}
		}
		for name, wants := range flagKinds(c.Subcommands) {
			kinds[name] = wants
		}
	}
	return kinds
}

func (l *line) flag(f flagArg) {
	switch f.name {
	case "help", "h":
		l.help = true
	case "version":
		l.version = true
	default:
		l.flags = append(l.flags, f)
	}
}

// word takes the next argument that is not a flag: a command or a positional.
func (l *line) word(w string) error {
	candidates := l.app.Commands
	if l.cmd != nil {
		candidates = l.cmd.Subcommands
	}
	if len(candidates) == 0 {
		l.positionals = append(l.positionals, w)
		return nil
	}
	if w == "help" {
		l.help = true
		return nil
	}
	i := slices.IndexFunc(candidates, func(c *cli.Command) bool { return c.HasName(w) })
	if i < 0 {
		name := strings.Join(append(slices.Clone(l.path), w), " ")
		near := append(slices.Clone(l.path), nearestCommand(candidates, w))
		return usage(fmt.Sprintf("unknown command %q", name),
			fmt.Sprintf("dcfs %s, or dcfs --help for all commands", strings.Join(near, " ")))
	}
	l.cmd = candidates[i]
	l.path = append(l.path, l.cmd.Name)
	return nil
}

func (l *line) has(flag string) bool {
	return slices.ContainsFunc(l.flags, func(f flagArg) bool { return f.name == flag })
}

func (l *line) helpCall() string {
	return strings.Join(append(append([]string{"dcfs"}, l.path...), "--help"), " ")
}

// check finds what is wrong with a line that names a command.
func (l *line) check() error {
	if subs := l.cmd.Subcommands; len(subs) > 0 {
		return usage(fmt.Sprintf("%s needs a subcommand", l.cmd.Name),
			"dcfs "+l.cmd.Name+" "+subs[0].Name)
	}
	for _, f := range l.flags {
		if !hasName(l.cmd.Flags, f.name) {
			return usage(fmt.Sprintf("unknown flag %s for %s", f.typed, strings.Join(l.path, " ")),
				cli.SuggestFlag(l.cmd.Flags, f.name, true)+", or "+l.helpCall()+" for all flags")
		}
	}
	want := strings.Fields(l.cmd.ArgsUsage)
	if len(want) != len(l.positionals) {
		return usage(fmt.Sprintf("%s takes %s, but got %s", strings.Join(l.path, " "),
			orNothing(strings.Join(want, " ")), orNothing(quoted(l.positionals))), l.helpCall())
	}
	if i := slices.Index(l.positionals, ""); i >= 0 {
		return usage(fmt.Sprintf("%s is empty", want[i]), l.helpCall())
	}
	return nil
}

func (l *line) flagArgs() (out []string) {
	for _, f := range l.flags {
		arg := "--" + f.name
		if f.hasValue {
			arg += "=" + f.value
		}
		out = append(out, arg)
	}
	return out
}

func hasName(flags []cli.Flag, name string) bool {
	return slices.ContainsFunc(flags, func(f cli.Flag) bool { return slices.Contains(f.Names(), name) })
}

func orNothing(s string) string {
	if s == "" {
		return "no arguments"
	}
	return s
}

func quoted(words []string) string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = fmt.Sprintf("%q", w)
	}
	return strings.Join(out, " ")
}

// nearestCommand asks cli's own measure of likeness, which it offers for flags
// by name and for commands only inside a sentence.
func nearestCommand(commands []*cli.Command, w string) string {
	var names []cli.Flag
	for _, c := range commands {
		names = append(names, &cli.BoolFlag{Name: c.Name})
	}
	if near := strings.TrimLeft(cli.SuggestFlag(names, w, true), "-"); near != "" {
		return near
	}
	return "--help"
}
