// Command pgmoneta is the backup daemon. It supervises one WAL worker process per
// PostgreSQL server and one process per running job; those are this same binary.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/pgmoneta/pgmoneta-go/internal/cmdline"
	"github.com/pgmoneta/pgmoneta-go/internal/config"
	"github.com/pgmoneta/pgmoneta-go/internal/console"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/foreign"
	"github.com/pgmoneta/pgmoneta-go/internal/ipc"
	"github.com/pgmoneta/pgmoneta-go/internal/logging"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/internal/shmem"
	"github.com/pgmoneta/pgmoneta-go/internal/supervisor"
	"github.com/pgmoneta/pgmoneta-go/internal/vault"
	"github.com/pgmoneta/pgmoneta-go/internal/version"
	"github.com/pgmoneta/pgmoneta-go/internal/worker"
)

func main() {
	if ipc.IsWorker() {
		os.Exit(worker.Main())
	}
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run runs the daemon and returns its exit code.
func run(words []string, stdout, stderr io.Writer) int {
	if len(words) > 0 && words[0] == "restore" {
		fmt.Fprintln(stderr, "pgmoneta:", becomeCLI(words))
		return 1
	}
	if len(words) > 0 && words[0] == cmdline.Verb {
		if err := commandLine().Answer(stdout, words[1:], nil); err != nil {
			fmt.Fprintln(stderr, "pgmoneta:", err)
			return 1
		}
		return 0
	}
	args, err := console.ParseArgs(console.Options(commandLine()), words)
	fail := func(err error) int {
		fmt.Fprintln(stderr, "pgmoneta:", err)
		return 1
	}
	switch {
	case err != nil:
		return fail(err)
	case args.Has("--version"):
		fmt.Fprintln(stdout, "pgmoneta", version.Version)
		return 1 // as C pgmoneta does, and scripts may test it
	case args.Has("--help"):
		fmt.Fprint(stdout, commandLine().Help(version.Version))
		return 0
	case len(args.Words) > 0:
		return fail(fmt.Errorf("unknown argument %q: see pgmoneta --help", args.Words[0]))
	case os.Geteuid() == 0:
		fmt.Fprintln(stderr, "pgmoneta: Using the root account is not allowed: run it as the user that owns base_dir")
		return 1
	}
	if args.Has("--daemon") {
		return detach(words, stdout, stderr)
	}
	flags := config.Flags{Config: args.Value("--config"), Users: args.Value("--users"), Admins: args.Value("--admins"), Directory: args.Value("--directory")}
	if err := daemon(flags); err != nil {
		return fail(err)
	}
	return 0
}

// becomeCLI makes this process the program that knows the command restore: who has lost
// a server does not have to know which of ours that is. It returns only when it fails.
func becomeCLI(words []string) error {
	const name = "pgmoneta-cli"
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return syscall.Exec(filepath.Join(filepath.Dir(self), name), append([]string{name}, words...), os.Environ())
}

func daemon(flags config.Flags) error {
	ready, err := inBackground()
	if err != nil {
		return err
	}
	files, err := config.Locate(flags, os.LookupEnv)
	if err != nil {
		return err
	}
	path, err := filepath.Abs(files.Config)
	if err != nil {
		return err
	}
	c, err := config.Load(path)
	if err != nil {
		return err
	}
	if ready != nil {
		if err := backgroundable(c); err != nil {
			return err
		}
	}
	segment, err := shmem.Create(shmem.Capacity{})
	if err != nil {
		return err
	}
	defer func() { _ = segment.Close() }()
	level := new(slog.LevelVar)
	level.Set(c.Main.LogLevel)
	log, err := openLog(c, level, segment)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	for _, w := range c.Warnings {
		log.Warn("configuration", "problem", w.Error())
	}
	if files.Warning != "" {
		log.Warn(files.Warning)
	}

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGALRM)
	defer stop()
	notifier, err := supervisor.NewNotifier(os.LookupEnv)
	if err != nil {
		return err
	}
	defer func() { _ = notifier.Close() }()
	master := masterKey()
	s, err := supervisor.New(supervisor.Options{
		Config: c, Files: files, Log: log, Level: level, Segment: segment,
		LoadUsers:  func(c *config.Config) (*vault.Users, error) { return loadUsers(c, files.Users, master) },
		LoadAdmins: func() (*vault.Users, error) { return loadAdmins(files.Admins, master) },
		MasterKey:  master,
		Foreign: func(r *repo.Repository, key func() (*vault.MasterKey, error)) (repo.Foreign, error) {
			return foreign.Open(durable.OS{}, r, key)
		},
		Notifier: notifier,
		Ready: func() {
			if ready == nil {
				return
			}
			if err := ready(); err != nil {
				log.Warn("who started the daemon is not told that it runs", "err", err)
			}
		},
		Reload: notify(syscall.SIGHUP), Rebind: notify(syscall.SIGUSR1),
	})
	if err == nil {
		err = s.Run(ctx)
	}
	if err != nil && c.Main.LogType != config.LogConsole {
		log.Log(context.Background(), logging.LevelFatal, "cannot run", "err", err)
	}
	return err
}

func notify(sig os.Signal) <-chan os.Signal {
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, sig)
	return ch
}

// masterKey returns what reads the master key file, again when it has changed.
func masterKey() func() (*vault.MasterKey, error) {
	home, ok := os.LookupEnv("HOME")
	if !ok {
		return func() (*vault.MasterKey, error) {
			return nil, errors.New("HOME is not set, so the master key cannot be found")
		}
	}
	return vault.NewKeyFile(vault.MasterKeyPath(home)).Load
}

// loadUsers reads the users file. Without one, every server needs a password
// file or must trust us.
func loadUsers(c *config.Config, path string, masterKey func() (*vault.MasterKey, error)) (*vault.Users, error) {
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) || path == "" {
		err := c.ValidateUsers(func(string) bool { return false })
		if err != nil {
			return nil, fmt.Errorf("USERS configuration not found: %s\n%w", path, err)
		}
		return nil, nil
	}
	master, err := masterKey()
	if err != nil {
		return nil, fmt.Errorf("invalid master key file: %w", err)
	}
	users, err := vault.LoadUsers(path, master)
	if err != nil {
		return nil, err
	}
	known := func(user string) bool { _, ok := users.Lookup(user); return ok }
	return users, c.ValidateUsers(known)
}

// loadAdmins reads the admins file. Without one nobody can log in over TCP.
func loadAdmins(path string, masterKey func() (*vault.MasterKey, error)) (*vault.Users, error) {
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) || path == "" {
		return nil, nil
	}
	master, err := masterKey()
	if err != nil {
		return nil, fmt.Errorf("invalid master key file: %w", err)
	}
	return vault.LoadUsers(path, master)
}

func openLog(c *config.Config, level *slog.LevelVar, segment *shmem.Segment) (*logging.Log, error) {
	path := c.Main.LogPath
	if path != "" && !filepath.IsAbs(path) {
		if abs, err := filepath.Abs(path); err == nil {
			path = abs
		}
	}
	return logging.Open(logging.Options{
		Level: level, Prefix: c.Main.LogLinePrefix, Count: segment.CountLog,
		Kind: logging.Kind(c.Main.LogType), Path: path, Truncate: c.Main.LogMode == config.LogCreate,
		RotationSize: c.Main.LogRotationSize, RotationAge: c.Main.LogRotationAge, Turn: segment.LogTurn(),
	})
}
