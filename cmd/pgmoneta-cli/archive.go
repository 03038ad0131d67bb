package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/mgmt"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/internal/restore"
)

// standardOutput stands for it in the place of a directory.
const standardOutput = "-"

// toStandardOutput reports whether an archive is to be written to standard output.
func toStandardOutput(c call) bool {
	return c.form.command == mgmt.Archive && c.words[len(c.words)-1] == standardOutput
}

// streamed returns the exit status of an archive on standard output, where nothing else may stand.
func (p *program) streamed(doc mgmt.Document) int {
	if err := doc.Outcome().Err(); err != nil {
		p.complain(err.Error())
		p.complain("what was written to standard output is no archive")
		return exitRefused
	}
	p.complain("archived backup " + doc.Object("Response").Text("Backup"))
	return exitOK
}

// archive writes a restorable cluster as one tar, in this process.
func (i inspector) archive(ctx context.Context, req *mgmt.Request, r *repo.Repository) (mgmt.Response, error) {
	resp, err := i.writeArchive(ctx, req, r)
	if err == nil {
		return resp, nil
	}
	codes := req.Command.Codes()
	e := &mgmt.Error{Code: codes.Other, Workflow: "archive", Err: err}
	switch {
	case errors.As(err, new(*durable.LockedError)):
		e.Code = codes.Busy
	case errors.Is(err, repo.ErrNoBackup):
		e.Code = codes.NoBackup
	}
	return nil, e
}

func (i inspector) writeArchive(ctx context.Context, req *mgmt.Request, r *repo.Repository) (mgmt.Response, error) {
	target, err := restore.ParsePosition(req.Args.Text("Position"))
	if err != nil {
		return nil, err
	}
	unlock, held, err := i.lock(r)
	if err != nil {
		return nil, err
	}
	defer unlock()
	server, _ := i.conf.Server(r.Server())
	at := server.Addresses()[0]
	plan, err := restore.MakePlan(ctx, r, restore.Options{Backup: req.Backup(), Target: target, Tar: true,
		PrimaryConninfo: restore.Conninfo(r.Server(), at.Host, at.Port, server.User)})
	if err != nil {
		return nil, err
	}
	o := restore.ArchiveOptions{Level: i.conf.Main.CompressionLevel, Master: i.masterKey, Unlocked: !held,
		Run: restore.RunOptions{Workers: i.conf.Workers(server), Progress: i.progress()}}
	if o.Codec, err = container.ParseCodec(i.conf.Main.Compression.Codec.String()); err != nil {
		return nil, err
	}
	configured, err := container.ParseCipher(i.conf.Main.Encryption.String())
	if err != nil {
		return nil, err
	}
	if o.Cipher, err = restore.ArchiveCipher(plan, configured, req.Args.Bool("Plain")); err != nil {
		return nil, err
	}
	resp := mgmt.Response{"Server": r.Server(), "Backup": string(plan.Backup.Label), "FileName": standardOutput}
	directory := req.Args.Text("Directory")
	if directory == standardOutput {
		return resp, restore.StreamArchive(ctx, plan, i.out, o)
	}
	path, err := restore.WriteArchive(ctx, plan, directory, o)
	if err != nil {
		return nil, fmt.Errorf("server %q: %w", r.Server(), err)
	}
	resp["FileName"] = path
	return resp, nil
}
