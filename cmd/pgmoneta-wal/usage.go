package main

import (
	"github.com/pgmoneta/pgmoneta-go/internal/cmdline"
	"github.com/pgmoneta/pgmoneta-go/internal/config"
	"github.com/pgmoneta/pgmoneta-go/internal/version"
)

func usage() string { return commandLine().Help(version.Version) }

// commandLine describes the program: help, completion and manual page are made of it.
func commandLine() *cmdline.Program {
	return &cmdline.Program{
		Name:  "pgmoneta-wal",
		About: "Passes WAL between an archive of pgmoneta and PostgreSQL",
		Usage: []string{
			"pgmoneta-wal get [ OPTIONS ] SERVER FILE TARGET",
			"pgmoneta-wal push [ OPTIONS ] SERVER PATH",
			"pgmoneta-wal check [ -c CONFIG_FILE ] SERVER FILE",
			"pgmoneta-wal completion bash|zsh|fish",
		},
		Intro: `In postgresql.conf:
  restore_command = 'pgmoneta-wal get -c /etc/pgmoneta/pgmoneta.conf primary %f %p'
  archive_command = 'pgmoneta-wal push -c /etc/pgmoneta/pgmoneta.conf primary %p'

SERVER is the section of pgmoneta.conf. Of the configuration only base_dir,
compression and compression_level are used. No daemon and no connection is
needed; run it as the user of the daemon.`,
		Commands: []cmdline.Command{
			{Name: "get", Args: "SERVER FILE TARGET", Help: "deliver FILE, a segment or a history file of any timeline, as TARGET"},
			{Name: "push", Args: "SERVER PATH", Help: "archive PATH, a segment, a partial one or a history file"},
			{Name: "check", Args: "SERVER FILE", Help: "tell by the status of get whether it could deliver FILE"},
			{Name: cmdline.Verb, Args: "bash|zsh|fish", Help: "print what makes a shell complete these command lines"},
		},
		Groups: []cmdline.Group{generalOptions(), getOptions(), pushOptions()},
		Outro: `check tells by the status of get whether it could deliver FILE. That it can be
opened is found out, its content is not read: for one who sets restore_command up.

Messages go to standard error, one line each, and from there to the log of the
server.`,
		Files:   []cmdline.Entry{{Name: "/etc/pgmoneta/pgmoneta.conf", Help: "where the archive is"}, {Name: "~/.pgmoneta/master.key", Help: "the master key, for encrypted repositories"}},
		SeeAlso: []string{"pgmoneta(1)", "pgmoneta-cli(1)", "pgmoneta.conf(5)"},
	}
}

func generalOptions() cmdline.Group {
	return cmdline.Group{Title: "Options of all", Options: []cmdline.Option{
		{Short: "-c", Long: "--config", Arg: "CONFIG_FILE", Help: "default /etc/pgmoneta/pgmoneta.conf"},
		{Short: "-V", Long: "--version", Help: "print the version"},
		{Short: "-?", Long: "--help", Help: "print this help"},
	}}
}

func getOptions() cmdline.Group {
	get := []string{"get"}
	return cmdline.Group{
		Title: "get, which delivers FILE, a segment or a history file of any timeline, as TARGET",
		Options: []cmdline.Option{
			{Long: "--partial", For: get, Help: "when the segment is still being received, deliver\nwhat has come of it, filled up with zeros: a recovery\n" +
				"then ends at the last received byte and not at the\nend of the last segment"},
			{Long: "--prefetch", Arg: "N", For: get, Help: "prepare the N segments that follow, on all CPUs, so\nthat they are there when they are asked for; default\n" +
				"twice the number of CPUs, at most 4 GiB; 0 prepares\nnone"},
			{Long: "--end-at-hole", For: get, Help: "when a segment is missing in the middle of the\narchive, let recovery end there"},
		},
		Notes: `TARGET appears whole and checked, or not at all. Segments are prepared in
pg_wal/pgmoneta-prefetch by a process that ends by itself, a second after it
has nothing to do, or a minute after it began. Where PostgreSQL is process 1,
as in a container without an init, use --prefetch 0: it takes any process that
dies below it for one of its own.

Exit status:
  0     delivered
  1     not in the archive: PostgreSQL takes it for the archive's end
  200   anything else: damaged, a hole, wrong configuration, no permission,
        disk full. PostgreSQL stops and does not end recovery too early. A
        hole is no error for a standby, which can ask its primary, and where
        pg_wal has the segment.`,
	}
}

func pushOptions() cmdline.Group {
	push := []string{"push"}
	return cmdline.Group{
		Title: "push, which archives PATH, a segment, a partial one or a history file",
		Options: []cmdline.Option{
			{Long: "--max-queue", Arg: "BYTES", For: push, Help: "complain on every file while more than this waits in\npg_wal to be archived; K, M, G and T may follow the\nnumber"},
			{Long: "--drop-when-full", For: push, Help: "beyond --max-queue, report segments as archived that\nare not. THIS MAKES A HOLE: no recovery goes past it\n" +
				"until the next full backup. Without it no segment is\never given up, and pg_wal grows for as long as\narchiving fails"},
		},
		Notes: `A file that is archived already, by a push or by the receiver, is compared.
The receiver may stream from the same server at the same time.

Exit status:
  0     the file is in the archive, on stable storage
  1     not now, such as disk full or locked: PostgreSQL tries again
  200   refused: other content under the same name, WAL of another cluster,
        no WAL at all, wrong configuration. PostgreSQL tries again too, but
        somebody has to act`,
	}
}

// values returns what may stand for an argument on the command line.
func (p *program) values(name string, words []string) []string {
	if name != "server" {
		return nil
	}
	var o options
	if len(words) > 0 {
		_ = flags(words[0], &o).Parse(words[1:]) // what it does not know leaves the usual file
	}
	files, err := config.Locate(config.Flags{Config: o.config}, p.env)
	if err != nil {
		return nil
	}
	return config.ServerNames(files.Config)
}
