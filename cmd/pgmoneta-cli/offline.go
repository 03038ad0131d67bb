package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

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
	if c.form.command != mgmt.WALCheck && c.form.command != mgmt.Restore {
		p.complain(fmt.Sprintf("--offline is for wal check and restore, %s needs the daemon", c.form.name()))
		return exitUsage
	}
	conf, format, err := p.daemonConfig(c.options)
	if err != nil {
		p.complain(err.Error())
		return exitUsage
	}
	client := &mgmt.Client{Version: version.Version, Output: mgmt.Output(format), Now: p.now}
	doc := mgmt.Local(ctx, inspector{conf, p.masterKey, p.complain}, mgmt.Options{Version: version.Version, Now: p.now}, client, c.form.command, c.form.request(c))
	if ctx.Err() != nil {
		p.complain("interrupted")
		return exitInterrupted
	}
	return p.show(doc, format, c)
}

// daemonConfig reads the daemon's configuration.
func (p *program) daemonConfig(o *console.Args) (*config.Config, console.Format, error) {
	conf, err := config.Load(p.daemonFile(o))
	if err != nil {
		return nil, 0, err
	}
	format, err := outputFormat(o)
	return conf, format, err
}

// daemonFile returns the path of the daemon's configuration.
func (p *program) daemonFile(o *console.Args) string {
	if path := o.Value("--config"); path != "" {
		return path
	}
	dir := config.DefaultDir
	if d, ok := p.env(config.DirectoryVariable); ok && d != "" {
		dir = d
	}
	return filepath.Join(dir, config.ConfigName)
}

func outputFormat(o *console.Args) (console.Format, error) {
	if !o.Has("--format") {
		return console.Text, nil
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
}

// Handle implements [mgmt.Handler].
func (i inspector) Handle(ctx context.Context, req *mgmt.Request) (mgmt.Response, error) {
	codes := req.Command.Codes()
	if _, ok := i.conf.Server(req.Server()); !ok {
		return nil, &mgmt.Error{Code: codes.NoServer, Err: fmt.Errorf("server %q is not configured", req.Server())}
	}
	workflow := "wal check"
	if req.Command == mgmt.Restore {
		workflow = "restore"
	}
	r, closeRepository, err := i.repository(req.Server())
	if err != nil {
		return nil, &mgmt.Error{Code: codes.Other, Workflow: workflow, Err: err}
	}
	defer closeRepository()
	if req.Command == mgmt.Restore {
		return i.restore(ctx, req, r)
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
	master := sync.OnceValues(i.masterKey) // what is derived from it is derived once, not for each file
	r.UseKeys(repo.Keys{Master: master})
	f, err := foreign.Open(durable.OS{}, r, master)
	if err != nil {
		return nil, nil, err
	}
	r.UseForeign(f)
	return r, func() { _ = f.Close() }, nil
}
