package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pgmoneta/pgmoneta-go/internal/config"
	"github.com/pgmoneta/pgmoneta-go/internal/console"
	"github.com/pgmoneta/pgmoneta-go/internal/mgmt"
	"github.com/pgmoneta/pgmoneta-go/internal/vault"
)

// A connection says where the daemon is and how its response is printed.
type connection struct {
	socket   string
	remote   string // address of a daemon elsewhere, which comes before the socket
	user     string // of the remote daemon, "" to ask
	password *vault.Secret
	format   console.Format
	coding   mgmt.Coding
}

// The words of --compress and --encrypt by their codes.
func compressWords() []string { return []string{"none", "gz", "zstd", "lz4", "bz2"} }
func encryptWords() []string  { return []string{"none", "aes256", "aes192", "aes128", "aes"} }

// coding returns how the frames of a connection are written. On a socket there is
// nothing to save and nobody to hide from, so that only options say otherwise.
func coding(o *console.Args) (c mgmt.Coding) {
	if i := slices.Index(compressWords(), o.Value("--compress")); i > 0 {
		c.Compression = mgmt.Compression(i)
	}
	if i := slices.Index(encryptWords(), o.Value("--encrypt")); i > 0 {
		c.Encryption = mgmt.Encryption(i)
	}
	if c.Encryption > mgmt.EncryptionAES128 { // "aes"
		c.Encryption = mgmt.EncryptionAES256
	}
	return c
}

// checkOptions refuses options whose value makes no sense, before anything is connected.
func checkOptions(o *console.Args) error {
	if o.Has("--format") {
		if _, err := console.ParseFormat(o.Value("--format")); err != nil {
			return &usageError{message: "Format type is not correct: use table, text, json or raw"}
		}
	}
	if err := oneOf(o, "--compress", compressWords()...); err != nil {
		return err
	}
	if err := oneOf(o, "--encrypt", encryptWords()...); err != nil {
		return err
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

// locate finds the daemon: with options, or in the configuration file.
func (p *program) locate(o *console.Args) (connection, error) {
	cli := &config.CLI{}
	path, err := p.configFile(o)
	if err == nil {
		cli, err = config.ParseCLI(path)
	} else if o.Has("--host") && o.Has("--port") {
		err = nil // everything is said
	}
	if err != nil {
		return connection{}, err
	}
	c := connection{format: console.Format(cli.Output), coding: coding(o), user: o.Value("--user")}
	if o.Has("--password") {
		s := vault.NewSecret(o.Value("--password"))
		c.password = &s
	}
	if c.remote, err = address(o, cli); err != nil {
		return connection{}, err
	}
	if c.remote == "" && cli.UnixSocketDir == "" {
		return connection{}, fmt.Errorf("%s has no unix_socket_dir: set it to the directory of the daemon's socket, or use '--host' (-h) and '--port' (-p)", path)
	}
	c.socket = filepath.Join(cli.UnixSocketDir, mgmt.SocketName)
	switch {
	case o.Has("--format"):
		c.format, err = console.ParseFormat(o.Value("--format"))
	case !cli.OutputSet:
		c.format = p.defaultFormat()
	}
	return c, err
}

// defaultFormat is what nobody asked for: at a terminal sits a person.
func (p *program) defaultFormat() console.Format {
	if p.columns > 0 {
		return console.Table
	}
	return console.Text
}

// configFile returns the file of --config, or the first that exists of those looked for without it.
func (p *program) configFile(o *console.Args) (string, error) {
	if o.Has("--config") {
		return o.Value("--config"), nil
	}
	dirs := []string{p.defaultDir}
	if dir, ok := p.env(config.DirectoryVariable); ok && dir != "" {
		dirs = []string{dir, p.defaultDir}
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
