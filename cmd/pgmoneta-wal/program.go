package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/pgmoneta/pgmoneta-go/internal/cmdline"
	"github.com/pgmoneta/pgmoneta-go/internal/config"
	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/vault"
	"github.com/pgmoneta/pgmoneta-go/internal/version"
	"github.com/pgmoneta/pgmoneta-go/internal/walfile"
)

// Exit statuses. PostgreSQL takes up to 125 of a restore_command for "not
// there" and more for a failure that must stop it; see RestoreArchivedFile in
// src/backend/access/transam/xlogarchive.c.
const (
	exitOK      = 0
	exitNo      = 1 // get: not in the archive; push: not now
	exitFailure = 200
)

// A program is one run with everything it takes from its surroundings.
type program struct {
	stdout, stderr io.Writer
	env            func(string) (string, bool)
	spawn          func(args []string) error // starts this program once more and returns at once
}

// options are what the command line says.
type options struct {
	config    string
	help      bool
	version   bool
	partial   bool
	endAtHole bool
	prefetch  int
	maxQueue  size
	drop      bool
}

// run does what args say and returns the exit status.
func (p *program) run(args []string) int {
	if len(args) == 0 {
		_, _ = io.WriteString(p.stderr, usage())
		return exitFailure
	}
	command, args := args[0], args[1:]
	switch command {
	case cmdline.Verb:
		if err := commandLine().Answer(p.stdout, args, p.values); err != nil {
			p.complain(err.Error())
			return exitFailure
		}
		return exitOK
	case "-V", "--version":
		_, _ = fmt.Fprintln(p.stdout, "pgmoneta-wal "+version.Version)
		return exitOK
	case "-?", "--help", "help":
		_, _ = io.WriteString(p.stdout, usage())
		return exitOK
	}
	code, err := p.command(command, args)
	if err != nil {
		p.complain(err.Error())
	}
	return code
}

// complain writes one line.
func (p *program) complain(text string) {
	text = strings.ReplaceAll(strings.TrimSpace(text), "\n", "; ")
	_, _ = fmt.Fprintln(p.stderr, "pgmoneta-wal: "+text)
}

func (p *program) command(command string, args []string) (int, error) {
	var o options
	set := flags(command, &o)
	if err := set.Parse(args); err != nil {
		return exitFailure, fmt.Errorf("%s: %w: see pgmoneta-wal --help", command, err)
	}
	if o.help || o.version {
		return p.run([]string{map[bool]string{true: "--help", false: "--version"}[o.help]}), nil
	}
	run, names := p.get, "SERVER FILE TARGET"
	switch command {
	case "get":
	case "check":
		run, names = p.check, "SERVER FILE"
	case "push":
		run, names = p.push, "SERVER PATH"
	case "prefetch": // started by get
		run, names = p.prefetch, "SERVER SPOOL"
	default:
		return exitFailure, fmt.Errorf("%q is no command: see pgmoneta-wal --help", command)
	}
	if set.NArg() != len(strings.Fields(names)) {
		return exitFailure, fmt.Errorf("%s takes %s after the options, got %q: see pgmoneta-wal --help", command, names, set.Args())
	}
	return run(context.Background(), o, set.Args())
}

func flags(command string, o *options) *flag.FlagSet {
	set := flag.NewFlagSet(command, flag.ContinueOnError)
	set.SetOutput(io.Discard)
	set.Usage = func() {}
	for _, name := range []string{"c", "config"} {
		set.StringVar(&o.config, name, "", "")
	}
	for _, name := range []string{"?", "help"} {
		set.BoolVar(&o.help, name, false, "")
	}
	for _, name := range []string{"V", "version"} {
		set.BoolVar(&o.version, name, false, "")
	}
	switch command {
	case "get":
		set.BoolVar(&o.partial, "partial", false, "")
		set.BoolVar(&o.endAtHole, "end-at-hole", false, "")
		set.IntVar(&o.prefetch, "prefetch", 2*runtime.NumCPU(), "")
	case "push":
		set.Var(&o.maxQueue, "max-queue", "")
		set.BoolVar(&o.drop, "drop-when-full", false, "")
	}
	return set
}

// A size is a flag of bytes.
type size int64

func (s *size) String() string { return strconv.FormatInt(int64(*s), 10) }

// Set implements [flag.Value]: a positive number, K, M, G or T behind it as powers of 1,024.
func (s *size) Set(text string) error {
	shift := 0
	digits := strings.TrimRight(text, "KMGT")
	if unit := text[len(digits):]; unit != "" {
		shift = 10 * (1 + strings.Index("KMGT", unit))
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 1 || len(text) > len(digits)+1 || n > 1<<62>>shift {
		return errors.New("want a number of bytes such as 8589934592 or 8G")
	}
	*s = size(n << shift)
	return nil
}

// configuration reads the configuration and finds the server in it. Nothing is
// validated that is not used here: the file may name directories and files
// that only the daemon's machine has.
func (p *program) configuration(o options, server string) (*config.Config, string, error) {
	files, err := config.Locate(config.Flags{Config: o.config}, p.env)
	if err != nil {
		return nil, "", fmt.Errorf("server %q: %w", server, err)
	}
	path, err := filepath.Abs(files.Config)
	if err != nil {
		return nil, "", err
	}
	c, err := config.Parse(path)
	if err != nil {
		return nil, "", fmt.Errorf("server %q: %w", server, err)
	}
	if _, ok := c.Server(server); !ok {
		return nil, "", fmt.Errorf("server %q: %s has no section of that name: check the arguments", server, path)
	}
	if c.Main.BaseDir == "" {
		return nil, "", fmt.Errorf("server %q: %s: base_dir is not set", server, path)
	}
	if c.Main.StorageEngines != config.StorageLocal {
		return nil, "", fmt.Errorf("server %q: %s: storage_engine is %s, this version reads and writes local repositories only", server, path, c.Main.StorageEngines)
	}
	return c, path, nil
}

func (p *program) get(ctx context.Context, o options, args []string) (int, error) {
	server, file, target := args[0], args[1], args[2]
	if o.prefetch < 0 {
		return exitFailure, fmt.Errorf("server %q: %s: --prefetch %d: want 0 or more", server, file, o.prefetch)
	}
	c, path, err := p.configuration(o, server)
	if err != nil {
		return exitFailure, err
	}
	g := walfile.Getter{
		BaseDir: c.Main.BaseDir, Server: server, Partial: o.partial, EndAtHole: o.endAtHole, Ahead: o.prefetch,
		MasterKey: p.masterKey,
		Start: func(spool string) error {
			dir, err := filepath.Abs(spool)
			if err != nil {
				return err
			}
			return p.spawn([]string{"prefetch", "--config", path, server, dir})
		},
	}
	return delivered(g.Get(ctx, file, target))
}

// delivered gives what came of asking for a file its status.
func delivered(err error) (int, error) {
	switch {
	case err == nil:
		return exitOK, nil
	case errors.Is(err, walfile.ErrNotArchived):
		return exitNo, err
	}
	return exitFailure, err
}

// check tells whether get could deliver a file, by its status.
func (p *program) check(ctx context.Context, o options, args []string) (int, error) {
	c, _, err := p.configuration(o, args[0])
	if err != nil {
		return exitFailure, err
	}
	g := walfile.Getter{BaseDir: c.Main.BaseDir, Server: args[0], Partial: true, MasterKey: p.masterKey}
	return delivered(g.Check(ctx, args[1]))
}

// prefetch runs in the process that get starts. Nobody reads its messages, and
// its status is 0 whatever happens: PostgreSQL as process 1 inherits it and takes
// another status for the crash of one of its own.
func (p *program) prefetch(ctx context.Context, o options, args []string) (int, error) {
	c, _, err := p.configuration(o, args[0])
	if err != nil {
		return exitOK, err
	}
	f := walfile.Prefetcher{BaseDir: c.Main.BaseDir, Server: args[0], Dir: args[1], MasterKey: p.masterKey}
	return exitOK, f.Run(ctx)
}

func (p *program) push(ctx context.Context, o options, args []string) (int, error) {
	server, path := args[0], args[1]
	if o.drop && o.maxQueue == 0 {
		return exitFailure, fmt.Errorf("server %q: %s: --drop-when-full needs --max-queue", server, filepath.Base(path))
	}
	c, conf, err := p.configuration(o, server)
	if err != nil {
		return exitFailure, err
	}
	cipher, err := container.ParseCipher(c.Main.Encryption.String())
	if err != nil {
		return exitFailure, fmt.Errorf("server %q: %s: %w", server, conf, err)
	}
	codec, err := container.ParseCodec(c.Main.Compression.Codec.String())
	if err != nil {
		return exitFailure, fmt.Errorf("server %q: %s: %w", server, conf, err)
	}
	w := walfile.Pusher{
		FS: durable.OS{}, BaseDir: c.Main.BaseDir, Server: server, Codec: codec, Level: c.Main.CompressionLevel,
		Cipher: cipher, MasterKey: p.masterKey, MaxQueue: int64(o.maxQueue), Drop: o.drop, Warn: p.complain,
	}
	err = w.Push(ctx, path)
	var dropped *walfile.DroppedError
	switch {
	case err == nil:
		return exitOK, nil
	case errors.As(err, &dropped):
		return exitOK, err
	case walfile.IsRefusal(err):
		return exitFailure, err
	}
	return exitNo, err
}

// masterKey reads the master key, which an encrypted archive needs. It is the one
// of the user who runs this program, so that of PostgreSQL where that runs it.
func (p *program) masterKey() (*vault.MasterKey, error) {
	home, _ := p.env("HOME")
	if home == "" {
		return nil, errors.New("HOME is not set: it names the directory that holds .pgmoneta/master.key")
	}
	return vault.LoadMasterKeyQuick(vault.MasterKeyPath(home))
}
