package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"dcfs/cmd/internal/config"
)

const defaultConfig = config.DefaultPath

// configure gives the flags that the command line left out their values from
// the environment and the configuration file: flag over environment, that over
// file, file over default. It runs before every command.
func configure(c *cli.Context) error {
	typed := map[string]bool{}
	for _, f := range c.Command.Flags {
		typed[f.Names()[0]] = c.IsSet(f.Names()[0])
	}
	c.App.Metadata[typedKey] = typed
	if err := fromEnv(c, "config"); err != nil {
		return err
	}
	file, err := config.Load(c.String("config"), c.IsSet("config"))
	if err != nil {
		return err
	}
	for _, f := range c.Command.Flags {
		name := f.Names()[0]
		if name == "config" || name == "help" {
			continue
		}
		if err := fromEnv(c, name); err != nil {
			return err
		}
		text, ok := file.Lookup(name)
		if !ok || c.IsSet(name) {
			continue
		}
		if err := c.Set(name, text); err != nil {
			return fmt.Errorf("%w: %s in %s: %w", config.ErrConfig, name, c.String("config"), err)
		}
	}
	return nil
}

const typedKey = "typed"

// isTyped reports whether a flag stood on the command line, rather than come
// from somewhere else.
func isTyped(c *cli.Context, flag string) bool {
	typed, _ := c.App.Metadata[typedKey].(map[string]bool)
	return typed[flag]
}

// fromEnv sets a flag from its environment variable. An empty variable is as
// good as none: that is how a unit file takes one back.
func fromEnv(c *cli.Context, name string) error {
	text := os.Getenv(envName(name))
	if text == "" || c.IsSet(name) {
		return nil
	}
	if err := c.Set(name, text); err != nil {
		return fmt.Errorf("%w: %s=%s in the environment: %w; correct it or unset it",
			config.ErrConfig, envName(name), text, err)
	}
	return nil
}

// envName derives DCFS_READ_TIMEOUT from read-timeout.
func envName(flag string) string {
	return "DCFS_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}
