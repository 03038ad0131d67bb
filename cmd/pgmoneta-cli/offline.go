package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/term"

	"github.com/pgmoneta/pgmoneta-go/internal/config"
	"github.com/pgmoneta/pgmoneta-go/internal/console"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/foreign"
	"github.com/pgmoneta/pgmoneta-go/internal/mgmt"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/internal/vault"
	"github.com/pgmoneta/pgmoneta-go/internal/version"
	"github.com/pgmoneta/pgmoneta-go/internal/walcheck"
)

// offline does a command without a daemon. It needs the daemon's configuration and
// the right to read its repository, in which it changes no object.
func (p *program) offline(ctx context.Context, c call) int {
	switch c.form.command {
	case mgmt.WALCheck, mgmt.Restore, mgmt.Archive:
	default:
		p.complain(fmt.Sprintf("--offline is for wal check, restore and archive, %s needs the daemon", c.form.name()))
		return exitUsage
	}
	conf, format, err := p.daemonConfig(c.options)
	if err != nil {
		p.complain(err.Error())
		return exitUsage
	}
	stream := toStandardOutput(c)
	if f, ok := p.stdout.(*os.File); ok && stream && term.IsTerminal(int(f.Fd())) {
		p.complain("standard output is a terminal: send the archive to a file or a program")
		return exitUsage
	}
	client := &mgmt.Client{Version: version.Version, Output: format.Output(), Now: p.now}
	bar := p.newBar(c)
	// What is derived from the master key is derived once.
	i := inspector{conf, sync.OnceValues(p.masterKey), p.complain, p.stdout, bar}
	doc := mgmt.Local(ctx, i, mgmt.Options{Version: version.Version, Now: p.now}, client, c.form.command, c.form.request(c))
	if bar != nil {
		bar.clear()
	}
	if ctx.Err() != nil {
		p.complain("interrupted")
		return exitInterrupted
	}
	if stream {
		return p.streamed(doc)
	}
	return p.show(doc, format, c)
}

// daemonConfig reads the daemon's configuration.
func (p *program) daemonConfig(o *console.Args) (*config.Config, console.Format, error) {
	conf, err := config.Load(p.daemonFile(o))
	if err != nil {
		return nil, 0, err
	}
	format, err := p.outputFormat(o)
	return conf, format, err
}

// daemonFile returns the path of the daemon's configuration.
func (p *program) daemonFile(o *console.Args) string {
	if path := o.Value("--config"); path != "" {
		return path
	}
	dir := p.defaultDir
	if d, ok := p.env(config.DirectoryVariable); ok && d != "" {
		dir = d
	}
	return filepath.Join(dir, config.ConfigName)
}

func (p *program) outputFormat(o *console.Args) (console.Format, error) {
	if !o.Has("--format") {
		return p.defaultFormat(), nil
	}
	return console.ParseFormat(o.Value("--format"))
}

// masterKey reads the master key, which an encrypted repository needs.
func (p *program) masterKey() (*vault.MasterKey, error) {
	home, _ := p.env("HOME")
	if home == "" {
		return nil, errors.New("HOME is not set: it names the directory that holds .pgmoneta/master.key")
	}
	return vault.LoadMasterKey(vault.MasterKeyPath(home))
}

// An inspector answers requests from what lies on the disk.
type inspector struct {
	conf      *config.Config
	masterKey func() (*vault.MasterKey, error)
	say       func(line string)
	out       io.Writer    // standard output
	bar       *progressBar // nil where nobody sees it
}

// Handle implements [mgmt.Handler].
func (i inspector) Handle(ctx context.Context, req *mgmt.Request) (mgmt.Response, error) {
	codes := req.Command.Codes()
	if _, ok := i.conf.Server(req.Server()); !ok {
		return nil, &mgmt.Error{Code: codes.NoServer, Err: fmt.Errorf("server %q is not configured", req.Server())}
	}
	workflow := "wal check"
	if req.Command != mgmt.WALCheck {
		workflow = req.Command.String()
	}
	r, closeRepository, err := i.repository(req.Server())
	if err != nil {
		return nil, &mgmt.Error{Code: codes.Other, Workflow: workflow, Err: err}
	}
	defer closeRepository()
	switch req.Command {
	case mgmt.Restore:
		return i.restore(ctx, req, r)
	case mgmt.Archive:
		return i.archive(ctx, req, r)
	}
	report, err := walcheck.Check(ctx, r, walcheck.Options{Deep: !req.Args.Bool("Quick")})
	if err != nil {
		return nil, &mgmt.Error{Code: codes.Other, Workflow: workflow, Err: err}
	}
	resp, err := mgmt.AnswerWALCheck(r.Server(), report.Result())
	if resp != nil {
		resp["Server"] = r.Server()
	}
	return resp, err
}

// repository opens a repository, which must exist, with what C pgmoneta left in it.
func (i inspector) repository(server string) (_ *repo.Repository, closeIt func(), err error) {
	dir := filepath.Join(i.conf.Main.BaseDir, server)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("server %q has no repository: %s does not exist", server, dir)
	} else if err != nil {
		return nil, nil, err
	}
	r, err := repo.Open(durable.OS{}, i.conf.Main.BaseDir, server)
	if err != nil {
		return nil, nil, err
	}
	r.UseKeys(repo.Keys{Master: i.masterKey})
	f, err := foreign.Open(durable.OS{}, r, i.masterKey)
	if err != nil {
		return nil, nil, err
	}
	r.UseForeign(f)
	return r, func() { _ = f.Close() }, nil
}
