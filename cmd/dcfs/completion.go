package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

func completionCommand() *cli.Command {
	return &cli.Command{
		Name:      "completion",
		Usage:     "print the completion script of a shell",
		ArgsUsage: "bash|zsh|fish",
		Description: `
Examples:
  dcfs completion bash > /etc/bash_completion.d/dcfs
  source <(dcfs completion zsh)
  dcfs completion fish > ~/.config/fish/completions/dcfs.fish`,
		Action: func(c *cli.Context) error {
			switch shell := c.Args().First(); shell {
			case "bash":
				return bashCompletion(c.App.Writer, c.App)
			case "zsh":
				fmt.Fprint(c.App.Writer, zshBridge)
				return bashCompletion(c.App.Writer, c.App)
			case "fish":
				script, err := c.App.ToFishCompletion()
				if err == nil {
					_, err = fmt.Fprintln(c.App.Writer, script)
				}
				return err
			default:
				return usage(fmt.Sprintf("no completion for %q", shell), "dcfs completion bash, zsh or fish")
			}
		},
	}
}

// zsh runs bash completions when it is told to; one script stays one truth.
const zshBridge = `#compdef dcfs
autoload -U +X compinit && compinit
autoload -U +X bashcompinit && bashcompinit
`

const bashHead = `# bash completion for dcfs
_dcfs() {
  local cur=${COMP_WORDS[COMP_CWORD]} path= words= w
  for w in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    case "$path/$w" in
`

const bashTail = `  esac
  COMPREPLY=( $(compgen -W "$words" -- "$cur") )
  if [[ $cur != -* && ${#COMPREPLY[@]} -eq 0 ]]; then
    COMPREPLY=( $(compgen -f -- "$cur") )
  fi
}
complete -o filenames -F _dcfs dcfs
`

// bashCompletion writes a script that needs neither this program nor the
// bash-completion package to complete commands, flags and file names.
func bashCompletion(w io.Writer, app *cli.App) error {
	var b strings.Builder
	b.WriteString(bashHead)
	nodes := commandNodes("", app.Commands)
	paths := make([]string, len(nodes))
	for i, n := range nodes {
		paths[i] = n.path
	}
	fmt.Fprintf(&b, "      %s) path=$path/$w ;;\n    esac\n  done\n", strings.Join(paths, "|"))
	b.WriteString("  case \"$path\" in\n")
	fmt.Fprintf(&b, "    '') words=%q ;;\n", strings.Join(append(names(app.Commands), "--help", "--version"), " "))
	for _, n := range nodes {
		fmt.Fprintf(&b, "    %s) words=%q ;;\n", n.path, strings.Join(n.words, " "))
	}
	b.WriteString(bashTail)
	_, err := io.WriteString(w, b.String())
	return err
}

// commandNode is a command and what may follow it.
type commandNode struct {
	path  string // "/key/generate"
	words []string
}

func commandNodes(prefix string, commands []*cli.Command) (out []commandNode) {
	for _, c := range commands {
		path := prefix + "/" + c.Name
		words := append(names(c.Subcommands), "--help")
		if strings.Contains(c.ArgsUsage, "|") { // a choice of words
			words = append(words, strings.Split(c.ArgsUsage, "|")...)
		}
		for _, f := range c.Flags {
			for _, n := range f.Names() {
				if len(n) > 1 {
					words = append(words, "--"+n)
				}
			}
		}
		slices.Sort(words)
		out = append(out, commandNode{path, slices.Compact(words)})
		out = append(out, commandNodes(path, c.Subcommands)...)
	}
	return out
}

func names(commands []*cli.Command) (out []string) {
	for _, c := range commands {
		out = append(out, c.Name)
	}
	return out
}
