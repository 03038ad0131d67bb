package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pgmoneta/pgmoneta-go/internal/config"
	"github.com/pgmoneta/pgmoneta-go/internal/console"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
)

// question is one thing that init needs to know.
type question struct {
	option string // that answers it
	arg    string
	words  []string // the usual answers
	help   string

	server   bool   // about a server, not about the daemon
	key      string // "" for the name of a server
	prompt   string
	fallback string // when nothing is entered; "" when something must be
	quiet    string // with --quiet, where there is no fallback
}

// questions are all questions in the order in which they are asked. What C pgmoneta takes when nothing is said is the same here.
func questions() []question {
	return []question{
		{option: "--host", arg: "ADDRESS", help: "address of the listeners, default *", key: "host", prompt: "Host (bind address)", fallback: "*"},
		{option: "--base-dir", arg: "DIR", help: "where the backups are kept", key: "base_dir", prompt: "Base directory for backups (required)", quiet: "/tmp/pgmoneta/"},
		{option: "--unix-socket-dir", arg: "DIR", help: "where the socket of pgmoneta-cli is, default /tmp/", key: "unix_socket_dir", prompt: "Unix socket directory", fallback: "/tmp/"},
		{option: "--metrics", arg: "PORT", help: "port of the metrics, 0 for none, default 5001", key: "metrics", prompt: "Metrics port (0 to disable)", fallback: "5001"},
		{option: "--compression", arg: "CODEC", words: []string{"none", "gzip", "zstd", "lz4", "bzip2"}, help: "default zstd", key: "compression", prompt: "Compression (none, gzip, zstd, lz4, bzip2)", fallback: "zstd"},
		{option: "--retention", arg: "DAYS", help: "for how long backups are kept, default 7", key: "retention", prompt: "Retention (days)", fallback: "7"},
		{option: "--log-type", arg: "TYPE", words: []string{"console", "file", "syslog", "json"}, help: "default file", key: "log_type", prompt: "Log type (console, file, syslog, json)", fallback: "file"},
		{option: "--log-level", arg: "LEVEL", words: []string{"fatal", "error", "warn", "info", "debug"}, help: "default info", key: "log_level", prompt: "Log level (fatal, error, warn, info, debug)", fallback: "info"},
		{option: "--log-path", arg: "FILE", help: "default /tmp/pgmoneta.log", key: "log_path", prompt: "Log path", fallback: "/tmp/pgmoneta.log"},
		{option: "--server", arg: "NAME", help: "name of the PostgreSQL server, default primary", server: true, prompt: "Section name", fallback: "primary"},
		{option: "--server-host", arg: "ADDRESS", help: "default localhost", server: true, key: "host", prompt: "Host", fallback: "localhost"},
		{option: "--server-port", arg: "PORT", help: "default 5432", server: true, key: "port", prompt: "Port", fallback: "5432"},
		{option: "--server-user", arg: "USER", help: "the role that may replicate", server: true, key: "user", prompt: "Replication user (required)", quiet: "repl"},
		{option: "--server-slot", arg: "NAME", help: "the replication slot", server: true, key: "wal_slot", prompt: "WAL slot name (required)", quiet: "repl"},
	}
}

// layout returns the keys of the main section as C pgmoneta arranges them, with an empty line behind each group.
func layout() [][]string {
	return [][]string{{"host", "metrics"}, {"base_dir"}, {"compression"}, {"retention"}, {"log_type", "log_level", "log_path"}, {"unix_socket_dir"}}
}

// answers are values by key.
type answers map[string]string

// wizard is one run of init.
type wizard struct {
	program *program
	args    *console.Args
	asks    bool
	names   []string // of the servers so far
}

func (p *program) init(args *console.Args, _ []string) error {
	path := "pgmoneta.conf"
	if args.Has("--output") {
		path = args.Value("--output")
	}
	if _, err := os.Lstat(path); err == nil && !args.Has("--force") {
		return complain("Output file '%s' already exists. Use --force to overwrite.", path)
	}
	given := slices.ContainsFunc(questions(), func(q question) bool { return args.Has(q.option) })
	w := &wizard{program: p, args: args, asks: !args.Has("--quiet") && (p.terminal || !given)}
	text, err := w.file()
	if err != nil {
		return err
	}
	if _, err := config.ParseBytes(path, []byte(text), p.anyVariable); err != nil {
		return err
	}
	if err := p.writeNew(path, []byte(text), args.Has("--force")); err != nil {
		return err
	}
	return w.say("\nConfiguration written to: %s\n", path)
}

// writeNew writes the file of init; one that is there is replaced only by force.
func (p *program) writeNew(path string, content []byte, force bool) error {
	if force {
		return p.write(path, content)
	}
	temp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".init.tmp")
	err := durable.WriteFile(p.fs, path, temp, content)
	if errors.Is(err, fs.ErrExist) {
		return complain("Output file '%s' already exists. Use --force to overwrite.", path)
	}
	return err
}

// say prints for whoever is asked.
func (w *wizard) say(format string, args ...any) error {
	if !w.asks {
		return nil
	}
	_, err := fmt.Fprintf(w.program.stdout, format, args...)
	return err
}

// file returns the text of the file.
func (w *wizard) file() (string, error) {
	if err := w.say("pgmoneta configuration generator\n================================\n\n--- [pgmoneta] section ---\n\n"); err != nil {
		return "", err
	}
	main, err := w.section(config.MainSection)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString("[pgmoneta]\n")
	for _, keys := range layout() {
		for _, key := range keys {
			if key != "metrics" || main[key] != "0" {
				fmt.Fprintf(&b, "%s = %s\n", key, main[key])
			}
		}
		b.WriteString("\n")
	}
	if err := w.servers(&b); err != nil {
		return "", err
	}
	return b.String(), nil
}

// servers adds the sections of the servers.
func (w *wizard) servers(b *strings.Builder) error {
	for first := true; ; first = false {
		more, err := w.more(first)
		if err != nil || !more {
			return err
		}
		if err := w.say("\n--- Server section ---\n\n"); err != nil {
			return err
		}
		server, err := w.section("")
		if err != nil {
			return err
		}
		w.names = append(w.names, server[""])
		fmt.Fprintf(b, "[%s]\nhost = %s\nport = %s\nuser = %s\nwal_slot = %s\n\n", server[""], server["host"], server["port"], server["user"], server["wal_slot"])
	}
}

// more asks whether there is another server. Where nothing is asked there is one.
func (w *wizard) more(first bool) (bool, error) {
	if !w.asks {
		return first, nil
	}
	if err := w.say("\nAdd a PostgreSQL server? [Y/n]: "); err != nil {
		return false, err
	}
	line, err := w.program.readLine()
	if errors.Is(err, io.EOF) {
		if first {
			return false, errInput
		}
		return false, nil // everything was entered
	}
	return !strings.HasPrefix(strings.ToLower(line), "n"), err
}

// section collects the answers about the daemon, or about a server, whose name is the empty key.
func (w *wizard) section(name string) (answers, error) {
	a := answers{}
	for _, q := range questions() {
		if q.server == (name == config.MainSection) {
			continue
		}
		value, err := w.answer(q, name)
		if err != nil {
			return nil, err
		}
		a[q.key] = value
		if q.key == "" {
			name = value
		}
	}
	return a, nil
}

// answer returns an acceptable answer: of the option, of whoever is asked, or what stands for none. An option counts for the first server alone.
func (w *wizard) answer(q question, section string) (string, error) {
	if w.args.Has(q.option) && (!q.server || len(w.names) == 0) {
		value := w.args.Value(q.option)
		if err := w.check(q, section, value); err != nil {
			return "", fmt.Errorf("%s: %w", q.option, err)
		}
		return value, nil
	}
	switch {
	case w.asks:
		return w.insist(q, section)
	case q.fallback == "" && !w.args.Has("--quiet"):
		return "", fmt.Errorf("%s is needed: nobody can be asked here", q.option)
	}
	return q.fallback + q.quiet, nil
}

// insist asks until the answer is acceptable.
func (w *wizard) insist(q question, section string) (string, error) {
	for {
		value, err := w.ask(q)
		if err != nil {
			return "", err
		}
		if err := w.check(q, section, value); err == nil {
			return value, nil
		} else if err := w.say("  %v\n", err); err != nil {
			return "", err
		}
	}
}

// errInput explains the end of the input.
var errInput = errors.New("the input ended before everything was asked: use --quiet, and options such as --base-dir for the answers")

func (w *wizard) ask(q question) (string, error) {
	hint := ""
	if q.fallback != "" {
		hint = " [" + q.fallback + "]"
	}
	if err := w.say("%s%s: ", q.prompt, hint); err != nil {
		return "", err
	}
	line, err := w.program.readLine()
	if errors.Is(err, io.EOF) {
		return "", errInput
	}
	if line = strings.TrimSpace(line); line == "" {
		line = q.fallback
	}
	return line, err
}

// check refuses what the daemon would refuse in the file.
func (w *wizard) check(q question, section, value string) error {
	if q.key == "" {
		if slices.Contains(w.names, value) {
			return errors.New("there is a server of this name")
		}
		_, err := config.NewText("", nil).AddSection(value, true)
		return plain(err)
	}
	if value == "" {
		return fmt.Errorf("%s is required", q.key)
	}
	_, err := config.Edit("", []byte("["+section+"]\n"), w.program.anyVariable, section, q.key, value)
	return plain(err)
}

// plain returns what is wrong without the place in a file that does not exist yet.
func plain(err error) error {
	if problem := (config.Problem{}); errors.As(err, &problem) {
		return errors.New(problem.Message)
	}
	return err
}

// maxInput is the longest line that is read from standard input, in bytes.
const maxInput = 64 << 10

// readLine reads a line of the input without its end. The last one may lack it. The error is [io.EOF] when there is none.
func (p *program) readLine() (string, error) {
	var b strings.Builder
	for b.Len() < maxInput {
		c, err := p.stdin.ReadByte()
		if errors.Is(err, io.EOF) && b.Len() > 0 || err == nil && c == '\n' {
			break
		}
		if err != nil {
			return "", err
		}
		b.WriteByte(c)
	}
	return strings.TrimSuffix(b.String(), "\r"), nil
}
