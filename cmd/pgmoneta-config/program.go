package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/pgmoneta/pgmoneta-go/internal/cmdline"
	"github.com/pgmoneta/pgmoneta-go/internal/config"
	"github.com/pgmoneta/pgmoneta-go/internal/console"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/version"
)

// name is the name of the program in its messages.
const name = "pgmoneta-config"

// program is one run of pgmoneta-config with all it touches.
type program struct {
	stdin    *bufio.Reader
	stdout   io.Writer
	stderr   io.Writer
	terminal bool // stdin is one
	env      func(string) (string, bool)
	uid      int
	fs       durable.FS // through which files are written
}

// command is one command of the program.
type command struct {
	name        string
	args        string // for the help
	least, most int    // number of its words
	help        string
	failure     string // last line on standard error when it failed, "" for none
	run         func(*program, *console.Args, []string) error
}

// commands are all commands, in the order of the help.
func commands() []command {
	return []command{
		{"init", "", 0, 0, "make a configuration file; asks what it needs to know", "Error generating configuration", (*program).init},
		{"get", "<file> <section> <key>", 3, 3, "print a value", "", (*program).get},
		{"set", "<file> <section> <key> <value>", 4, 4, "change or add a value, its section, and the file", "Error setting configuration value", (*program).set},
		{"del", "<file> <section> [<key>]", 2, 3, "remove a key, or a section with all its keys", "Error deleting configuration", (*program).del},
		{"ls", "<file> [<section>]", 1, 2, "list the sections, or the keys of one", "", (*program).ls},
	}
}

// run executes a command line and returns the exit code. The version exits with 1, as in C pgmoneta.
func (p *program) run(argv []string) int {
	if len(argv) > 0 && argv[0] == cmdline.Verb {
		if err := commandLine().Answer(p.stdout, argv[1:], p.values); err != nil {
			return p.fail(err.Error())
		}
		return 0
	}
	args, err := console.ParseArgs(console.Options(commandLine()), argv)
	if err != nil {
		p.warn("Error: " + err.Error())
		return p.fail("Error parsing command line")
	}
	switch {
	case args.Has("--version"):
		_, _ = fmt.Fprintln(p.stdout, name, version.Version)
		return 1
	case args.Has("--help"):
		_, _ = io.WriteString(p.stdout, usage())
		return 0
	case p.uid == 0:
		return p.fail(name + ": Using the root account is not allowed")
	case len(argv) == 0:
		_, _ = io.WriteString(p.stdout, usage())
		return 1
	case args.Unknown != "":
		p.warn("Error: Unknown option " + args.Unknown)
	}
	return p.dispatch(args)
}

// warn prints a message with the name of the program before it.
func (p *program) warn(message string) { _, _ = fmt.Fprintf(p.stderr, "%s: %s\n", name, message) }

// fail is warn, with the exit code.
func (p *program) fail(message string) int {
	p.warn(message)
	return 1
}

// dispatch finds the command and runs it.
func (p *program) dispatch(args *console.Args) int {
	c, err := findCommand(args.Words)
	if err != nil {
		p.warn(err.Error() + "\n")
		_, _ = io.WriteString(p.stdout, usage())
		return 1
	}
	if err := c.run(p, args, args.Words[1:]); err != nil {
		p.warn(err.Error())
		if c.failure != "" {
			p.warn(c.failure)
		}
		return 1
	}
	return 0
}

// complaint is a message in the words of C pgmoneta, which begin with a capital letter.
type complaint string

func (c complaint) Error() string { return string(c) }

func complain(format string, args ...any) error { return complaint(fmt.Sprintf(format, args...)) }

// findCommand returns the command of the words, or what is wrong with them.
func findCommand(words []string) (command, error) {
	if len(words) == 0 {
		return command{}, complain("A command is required")
	}
	all := commands()
	i := slices.IndexFunc(all, func(c command) bool { return c.name == words[0] })
	switch n := len(words) - 1; {
	case i < 0:
		return command{}, complain("Unknown command '%s'", words[0])
	case n < all[i].least:
		return command{}, complain("Too few arguments provided for command '%s'", words[0])
	case n > all[i].most:
		return command{}, complain("Too many arguments provided for command '%s'", words[0])
	}
	return all[i], nil
}

func (p *program) get(_ *console.Args, words []string) error {
	text, err := config.ReadText(words[0])
	if err != nil {
		return err
	}
	value, err := text.Value(words[1], words[2])
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(p.stdout, value)
	return err
}

func (p *program) ls(_ *console.Args, words []string) error {
	text, err := config.ReadText(words[0])
	if err != nil {
		return err
	}
	list := text.Sections()
	if len(words) > 1 {
		if list, err = text.Keys(words[1]); err != nil {
			return err
		}
	}
	for _, n := range list {
		if _, err := fmt.Fprintln(p.stdout, n); err != nil {
			return err
		}
	}
	return nil
}

func (p *program) set(args *console.Args, words []string) error {
	path, section, key, value := words[0], words[1], words[2], words[3]
	text, err := config.ReadText(path)
	if errors.Is(err, fs.ErrNotExist) {
		text, err = config.NewText(path, nil), nil
	}
	if err != nil {
		return err
	}
	if !slices.Contains(text.Sections(), section) {
		if text, err = text.AddSection(section, args.Has("--force")); err != nil {
			return err
		}
	}
	edited, err := config.Edit(path, text.Bytes(), p.anyVariable, section, key, value)
	if err != nil {
		return err
	}
	return p.write(path, edited)
}

func (p *program) del(_ *console.Args, words []string) error {
	text, err := config.ReadText(words[0])
	if err != nil {
		return err
	}
	if len(words) > 2 {
		text, err = text.Delete(words[1], words[2])
	} else {
		text, err = text.DeleteSection(words[1])
	}
	if err != nil {
		return err
	}
	return p.write(words[0], text.Bytes())
}

// anyVariable looks up an environment variable of a path. The daemon may have one that we do not have.
func (p *program) anyVariable(name string) (string, bool) {
	if value, ok := p.env(name); ok {
		return value, true
	}
	return "$" + name, true
}

// write replaces a file, or the one that a symbolic link names, and keeps its mode; a new one gets mode 0600.
func (p *program) write(path string, content []byte) error {
	mode := fs.FileMode(0o600)
	target, err := filepath.EvalSymlinks(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, err := os.Lstat(path); err == nil {
			return fmt.Errorf("%s is a symbolic link to a file that does not exist: make that file, or remove the link", path)
		}
		target = path
	case err != nil:
		return err
	default:
		info, err := os.Stat(target)
		if err != nil {
			return err
		}
		mode = info.Mode().Perm()
	}
	return durable.ReplaceFile(p.fs, target, mode, content)
}
