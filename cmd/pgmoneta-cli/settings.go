package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pgmoneta/pgmoneta-go/internal/config"
	"github.com/pgmoneta/pgmoneta-go/internal/console"
	"github.com/pgmoneta/pgmoneta-go/internal/mgmt"
)

// A connection says where the daemon is and how its response is printed.
type connection struct {
	socket string
	format console.Format
}

// checkOptions refuses options whose value makes no sense, before anything is connected.
func checkOptions(o *console.Args) error {
	if o.Has("--format") {
		if _, err := console.ParseFormat(o.Value("--format")); err != nil {
			return &usageError{message: "Format type is not correct: use text, json or raw"}
		}
	}
	if err := oneOf(o, "--compress", "none", "gz", "zstd", "lz4", "bz2"); err != nil {
		return err
	}
	if err := oneOf(o, "--encrypt", "none", "aes", "aes256", "aes192", "aes128"); err != nil {
		return err
	}
	// Encryption that was asked for is never left out silently. Compression only saves bytes; on a socket there is nothing to save.
	if o.Has("--encrypt") && o.Value("--encrypt") != "none" {
		return errors.New("encryption of the connection is not in this version: a Unix socket needs none, leave --encrypt (-E) out")
	}
	if o.Has("--sort") && sortOrder(o.Value("--sort")) == "" {
		return fmt.Errorf("sort order '%s' is not known: use asc or desc", o.Value("--sort"))
	}
	if err := oneOf(o, "--wal", "command", "copy"); err != nil {
		return err
	}
	for _, option := range []string{"--workers", "--max-rate"} {
		if _, err := config.ParseSize(o.Value(option)); o.Has(option) && err != nil {
			return fmt.Errorf("value '%s' of %s: %w", o.Value(option), option, err)
		}
	}
	if o.Has("--host") && o.Has("--port") {
		return errors.New("remote management (--host, --port) is not in this version: " +
			"run pgmoneta-cli on the daemon's machine with a configuration that names its unix_socket_dir")
	}
	return nil
}

func oneOf(o *console.Args, option string, words ...string) error {
	if !o.Has(option) || slices.Contains(words, o.Value(option)) {
		return nil
	}
	return fmt.Errorf("value '%s' of %s is not known: use %s", o.Value(option), option, strings.Join(words, ", "))
}

// sortOrder returns the word the daemon knows; any word beginning like it will do.
func sortOrder(word string) string {
	switch {
	case strings.HasPrefix(word, "asc"):
		return "asc"
	case strings.HasPrefix(word, "desc"):
		return "desc"
	default:
		return ""
	}
}

// locate finds the socket in the configuration file.
func (p *program) locate(o *console.Args) (connection, error) {
	path, err := p.configFile(o)
	if err != nil {
		return connection{}, err
	}
	cli, err := config.ParseCLI(path)
	if err != nil {
		return connection{}, err
	}
	if cli.UnixSocketDir == "" {
		return connection{}, fmt.Errorf("%s has no unix_socket_dir: set it to the directory of the daemon's socket "+
			"(remote management is not in this version)", path)
	}
	format := console.Format(cli.Output)
	if o.Has("--format") {
		format, err = console.ParseFormat(o.Value("--format"))
	}
	return connection{socket: filepath.Join(cli.UnixSocketDir, mgmt.SocketName), format: format}, err
}

// configFile returns the file of --config, or the first that exists of those looked for without it.
func (p *program) configFile(o *console.Args) (string, error) {
	if o.Has("--config") {
		return o.Value("--config"), nil
	}
	dirs := []string{config.DefaultDir}
	if dir, ok := p.env(config.DirectoryVariable); ok && dir != "" {
		dirs = []string{dir, config.DefaultDir}
	}
	var tried []string
	for _, dir := range dirs {
		for _, name := range []string{config.CLIName, config.ConfigName} {
			path := filepath.Join(dir, name)
			if _, err := os.Stat(path); err == nil {
				return path, nil
			}
			tried = append(tried, path)
		}
	}
	return "", &usageError{message: "No configuration file found. Name one with '--config' (-c), or create one of " + strings.Join(tried, ", ")}
}
