// Command pgmoneta-cli sends one command to a running pgmoneta and prints the response.
//
// The command line, the requests and the output are those of pgmoneta-cli 0.22. Differences on purpose:
//
//   - exit status 2 when the daemon reports a failure; it was 0. Its reason is printed on standard error
//   - root may run it: whether the socket may be used is decided by the socket's owner and mode
//   - a pgmoneta.conf serves as configuration, because it names the socket too, and the key output is honoured
//   - at a terminal, and unless a format is asked for, it answers with tables and shows how far a job is
//   - compress, decompress, encrypt and decrypt are always done by this program, never by the daemon
//
// Exit status: 0 success, 1 usage or no connection, 2 the daemon refused or failed, 130 interrupted.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"time"

	"golang.org/x/term"

	"github.com/pgmoneta/pgmoneta-go/doc/schema"
	"github.com/pgmoneta/pgmoneta-go/internal/cmdline"
	"github.com/pgmoneta/pgmoneta-go/internal/config"
	"github.com/pgmoneta/pgmoneta-go/internal/console"
	"github.com/pgmoneta/pgmoneta-go/internal/mgmt"
	"github.com/pgmoneta/pgmoneta-go/internal/version"
)

// schemaWord is the command that prints the schema of answers.
const schemaWord = "schema"

const (
	exitOK          = 0
	exitUsage       = 1
	exitRefused     = 2
	exitInterrupted = 130 // 128 + SIGINT, as shells report it
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	p := &program{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, env: os.LookupEnv, defaultDir: config.DefaultDir, now: time.Now, ticket: rand.Text, columns: columnsOf(os.Stdout)}
	if p.columns > 0 { // with the output in a pipe, what reads it may have the terminal
		p.progressColumns = columnsOf(os.Stderr)
	}
	os.Exit(p.run(ctx, os.Args[1:]))
}

// A program is one run with everything it takes from its surroundings.
type program struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	env            func(string) (string, bool)
	defaultDir     string // of configuration files, when nothing names another
	now            func() time.Time
	ticket         func() string // a name for the job of this run, that nobody guesses; nil for none
	columns        int           // of the terminal that standard output is, 0 when it is none

	// progressColumns is the width for showing how far a job is, 0 to show nothing.
	progressColumns int
}

// mostColumns is how wide a table becomes at most: longer lines are hard to read.
const mostColumns = 80

// columnsOf returns the width of a terminal, 0 of anything else.
func columnsOf(f *os.File) int {
	if !term.IsTerminal(int(f.Fd())) {
		return 0
	}
	if columns, _, err := term.GetSize(int(f.Fd())); err == nil && columns > 0 {
		return min(columns, mostColumns)
	}
	return mostColumns
}

// run does what args say and returns the exit status.
func (p *program) run(ctx context.Context, args []string) int {
	if len(args) == 0 {
		p.print(usage())
		return exitUsage
	}
	if len(args) > 1 && args[0] == cmdline.Verb && args[1] == cmdline.WordsVerb {
		return p.completion(args[1:]) // what follows is no command line of ours
	}
	parsed, err := console.ParseArgs(options(), args)
	if err != nil {
		p.complain("Error: " + err.Error())
		p.complain("Error parsing command line")
		return exitUsage
	}
	if parsed.Unknown != "" {
		p.complain("Error: Unknown option " + parsed.Unknown)
	}
	// 0.22 ends with 1 after -V, and scripts may know.
	if parsed.Has("--version") {
		p.print("pgmoneta-cli " + version.Version + "\n")
		return exitUsage
	}
	if parsed.Has("--help") {
		p.print(usage())
		return exitOK
	}
	return p.command(ctx, parsed)
}

func (p *program) command(ctx context.Context, parsed *console.Args) int {
	if err := checkOptions(parsed); err != nil {
		p.complain(err.Error())
		return exitUsage
	}
	form, words, err := match(parsed.Words)
	if err != nil {
		// The empty line belongs to the message since the first release.
		p.complain(err.Error() + "\n")
		p.print(err.help)
		return exitUsage
	}
	c := call{form: form, words: words, options: parsed}
	switch {
	case form.word == cmdline.Verb:
		return p.completion(words)
	case form.word == schemaWord:
		p.print(schema.Answers())
		return exitOK
	case form.command == mgmt.ConfCheck:
		return p.checkConf(ctx, c)
	case ofFile(form.command):
		return p.convert(ctx, c)
	case parsed.Has("--offline"):
		return p.offline(ctx, c)
	case toStandardOutput(c):
		p.complain("an archive to standard output is made by this program and not by the daemon: say --offline")
		return exitUsage
	}
	conn, fail := p.locate(parsed)
	if fail != nil {
		p.complain(fail.Error())
		return exitUsage
	}
	doc, status := p.send(ctx, conn, c)
	if status != exitOK {
		return status
	}
	return p.show(doc, conn.format, c)
}

// send returns the daemon's response, or the exit status when there is none.
func (p *program) send(ctx context.Context, conn connection, c call) (mgmt.Document, int) {
	client, err := p.dial(ctx, &conn)
	if err != nil {
		p.complain(err.Error())
		return nil, exitUsage
	}
	defer func() { _ = client.Close() }()
	return p.await(ctx, client, conn, c)
}

// dial connects to the daemon. What had to be asked for is kept in conn, for more connections.
func (p *program) dial(ctx context.Context, conn *connection) (*mgmt.Client, error) {
	if conn.remote != "" {
		return p.dialRemote(ctx, conn)
	}
	client, err := mgmt.Dial(ctx, conn.socket)
	if err != nil {
		return nil, &usageError{message: fmt.Sprintf("Failed to connect via Unix socket at '%s': %v. "+
			"Check that the daemon is running with this unix_socket_dir and that you may use its socket.", conn.socket, cause(err))}
	}
	return client, nil
}

// await sends the request and waits for the response.
func (p *program) await(ctx context.Context, client *mgmt.Client, conn connection, c call) (mgmt.Document, int) {
	client.Version, client.Output, client.Now = version.Version, conn.format.Output(), p.now
	client.Coding, client.Keys = conn.coding, p.masterKey
	args := c.args()
	if p.ticket != nil && slices.Contains(progressForms(), c.form.name()) {
		args["Ticket"] = p.ticket()
	}
	unfollow := p.follow(ctx, conn, c, args["Ticket"])
	doc, err := client.Call(ctx, c.form.command, args)
	unfollow()
	if ctx.Err() != nil {
		p.complain("interrupted: " + p.interrupted(ctx, conn, c, args["Ticket"]))
		return nil, exitInterrupted
	}
	if err != nil {
		p.complain(err.Error())
		return nil, exitUsage
	}
	return doc, exitOK
}

// cancelPatience is how long the daemon has to take note that a job is not wanted.
const cancelPatience = 5 * time.Second

// interrupted cancels a backup that nobody waits for any more, and tells what became of
// the command. Others go on: half a deletion or restore is of no use to anybody.
func (p *program) interrupted(ctx context.Context, conn connection, c call, ticket any) string {
	goesOn := c.form.name() + " goes on in the daemon"
	if c.form.command != mgmt.Backup {
		return goesOn
	}
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), cancelPatience)
	defer stop()
	client, err := p.dial(ctx, &conn)
	if err != nil {
		return goesOn
	}
	defer func() { _ = client.Close() }()
	client.Version, client.Now = version.Version, p.now
	client.Coding, client.Keys = conn.coding, p.masterKey
	// Not the job that runs, whosesoever it is: this one may be waiting for it.
	doc, err := client.Call(ctx, mgmt.Progress, mgmt.Document{"Server": c.word(0), "Command": "backup", "Cancel": true, "Ticket": ticket})
	if err != nil || !doc.Outcome().Status {
		return goesOn
	}
	return "backup was cancelled"
}

// cause leaves out the address, which the message has already.
func cause(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}

// show prints the response and returns the exit status it stands for.
func (p *program) show(doc mgmt.Document, format console.Format, c call) int {
	status := exitOK
	outcome := doc.Outcome()
	if !outcome.Status {
		status = exitRefused
	}

	found, err := p.render(doc, format, c)
	if err != nil {
		p.complain(err.Error())
		return exitUsage
	}
	if status == exitOK && !found {
		status = exitUsage
	}
	if err := outcome.Err(); err != nil && (format == console.Text || format == console.Table) {
		p.complain(err.Error())
	}
	if c.options.Has("--verbose") {
		p.print(verdict(outcome))
	}
	return status
}

// render reports whether the response holds what was asked for.
func (p *program) render(doc mgmt.Document, format console.Format, c call) (found bool, err error) {
	switch {
	case c.form.command == mgmt.ConfSet:
		return true, console.RenderChange(p.stdout, doc, format)
	case c.form.command == mgmt.ConfGet && len(c.words) > 0 && doc.Outcome().Status:
		return console.RenderSetting(p.stdout, doc, c.words[0], format)
	case format == console.Table:
		return true, console.RenderTable(p.stdout, doc, p.tableColumns())
	default:
		return true, console.Render(p.stdout, doc, format)
	}
}

// tableColumns is the width of a table, which may have been asked for without a terminal.
func (p *program) tableColumns() int {
	if p.columns > 0 {
		return p.columns
	}
	return mostColumns
}

func verdict(o mgmt.Outcome) string {
	if o.Status {
		return "Success (0)\n"
	}
	return fmt.Sprintf("Error (%d)\n", int(o.Code))
}

// print writes to standard output. A reader that left is found by the response's own write.
func (p *program) print(text string) { _, _ = io.WriteString(p.stdout, text) }

func (p *program) complain(text string) { _, _ = fmt.Fprintln(p.stderr, "pgmoneta-cli:", text) }
