package main

import (
	"fmt"
	"strings"

	"github.com/pgmoneta/pgmoneta-go/internal/cmdline"
	"github.com/pgmoneta/pgmoneta-go/internal/console"
	"github.com/pgmoneta/pgmoneta-go/internal/version"
)

// commandLine describes the program: help, completion and manual page are made of it.
func commandLine() *cmdline.Program {
	p := &cmdline.Program{
		Name:   "pgmoneta-cli",
		About:  "commands for a running pgmoneta",
		Usage:  []string{"pgmoneta-cli [options] <command>"},
		Groups: []cmdline.Group{generalOptions(), restoreOptions(), remoteOptions()},
		Outro: `A backup is a label or one of oldest, newest, latest. A position is a comma-separated list of latest (all WAL there
is), current or immediate, name=X, xid=X, lsn=X, time=X, inclusive=X, timeline=X, action=X, primary, replica.

Exit status: 0 success, 1 usage or no connection, 2 the daemon refused or failed, 130 interrupted.`,
		Files: []cmdline.Entry{
			{Name: "/etc/pgmoneta/pgmoneta_cli.conf", Help: "where the daemon is, looked for before pgmoneta.conf; both also in the directory that PGMONETA_CONFIG_DIR names"},
			{Name: "~/.pgmoneta", Help: "the master key, and for remote daemons root.crt, pgmoneta.crt and pgmoneta.key"},
		},
		SeeAlso: []string{"pgmoneta(1)", "pgmoneta-admin(1)", "pgmoneta-config(1)", "pgmoneta-wal(1)", "pgmoneta.conf(5)"},
	}
	for _, f := range forms() {
		p.Commands = append(p.Commands, cmdline.Command{Name: f.name(), Args: f.args, Help: f.help})
	}
	return p
}

func generalOptions() cmdline.Group {
	return cmdline.Group{Title: "Options", Options: []cmdline.Option{
		{Short: "-c", Long: "--config", Arg: "FILE", Help: "configuration: pgmoneta_cli.conf or the daemon's pgmoneta.conf"},
		{Short: "-F", Long: "--format", Arg: "FORMAT", Words: []string{"table", "text", "json", "raw"}, Help: "table (the default at a terminal), text (elsewhere), json or raw"},
		{Short: "-s", Long: "--sort", Arg: "ORDER", Words: []string{"asc", "desc"}, Help: "asc or desc, for list-backup", For: []string{"list-backup"}},
		{Long: "--cascade", Help: "also the backups it is based on, for retain and expunge", For: []string{"retain", "expunge"}},
		{Long: "--force", Help: "also backups that are retained, that the retention would keep from going, or, at once, that wait in the trash, for delete", For: []string{"delete"}},
		{Long: "--allow-corrupt", Help: "keep a backup whose pages have wrong checksums, marked", For: []string{"backup"}},
		{Long: "--plain", Help: "do not encrypt the archive of an encrypted repository", For: []string{"archive"}},
		{Long: "--quick", Help: "read no content, for wal check", For: []string{"wal check"}},
		{Long: "--offline", Help: "without a daemon, for wal check, restore and archive; FILE is the daemon's pgmoneta.conf", For: []string{"wal check", "restore", "archive"}},
		{Long: "--no-wait", Help: `error "busy" instead of waiting while the server has another job`, For: jobForms()},
		{Long: "--no-progress", Help: "do not show at a terminal how far backup, restore, verify, archive or delete is", For: progressForms()},
		{Long: "--save", Help: "write the setting into the file as well, for conf set; the former file is kept", For: []string{"conf set"}},
		{Long: "--all", Help: "all jobs that are remembered, for jobs", For: []string{"jobs"}},
		{Short: "-v", Long: "--verbose", Help: "end with Success (0) or Error (<code>)"},
		{Short: "-V", Long: "--version", Help: "print the version"},
		{Short: "-?", Long: "--help", Help: "print this"},
	}}
}

// jobForms are the commands that the daemon does as a job.
func jobForms() []string {
	return []string{"backup", "restore", "archive", "delete", "verify", "wal check", "repo check", "repo stats", "rehearse", "retention"}
}

func restoreOptions() cmdline.Group {
	restore := []string{"restore"}
	return cmdline.Group{Title: "For restore", Options: []cmdline.Option{
		{Long: "--dry-run", Help: "say what would be done, how long it takes and what stands in its way; change nothing", For: []string{"restore", "retention"}},
		{Long: "--exact", Help: "<directory> is the data directory itself, empty or missing; without it one is made in it", For: restore},
		{Long: "--delta", Help: "<directory> is a data directory: write only what differs, remove what does not belong", For: restore},
		{Long: "--wal", Arg: "HOW", Words: []string{"command", "copy"}, Help: "command: restore_command fetches WAL (the default where it works); copy: all to pg_wal", For: restore},
		{Long: "--waldir", Arg: "DIR", Help: "make pg_wal a link to DIR", For: restore},
		{Long: "--tablespace", Arg: "WHICH=DIR", Help: "where a tablespace goes, by name, OID or path; may be repeated", For: restore},
		{Long: "--tablespaces-in-place", Help: "tablespaces go where they were on the server", For: restore},
		{Long: "--owner", Arg: "USER[:GROUP]", Help: "give the files to another user; root only", For: restore},
		{Long: "--workers", Arg: "N", Help: "how many frames are written at once; default as configured", For: restore},
		{Long: "--max-rate", Arg: "BYTES", Help: "write at most so much per second; k, m or g may follow", For: restore},
	}}
}

func remoteOptions() cmdline.Group {
	return cmdline.Group{Title: "For a daemon on another machine", Options: []cmdline.Option{
		{Short: "-h", Long: "--host", Arg: "HOST", Help: "its host"},
		{Short: "-p", Long: "--port", Arg: "PORT", Help: "its management port"},
		{Short: "-U", Long: "--user", Arg: "NAME", Help: "an administrator"},
		{Short: "-P", Long: "--password", Arg: "TEXT", Help: "his password, which everybody on this machine sees: better PGMONETA_PASSWORD, or be asked"},
		{Short: "-L", Long: "--logfile", Arg: "FILE", Help: "accepted and not used: everything is reported on standard error"},
		{Short: "-C", Long: "--compress", Arg: "CODEC", Words: compressWords(), Help: "none, gz, zstd, lz4 or bz2: how request and response travel; what compress does"},
		{Short: "-E", Long: "--encrypt", Arg: "CIPHER", Words: encryptWords(), Help: "none, aes256 (aes), aes192 or aes128: the same, and what encrypt does; needs the daemon's master key"},
	}}
}

func options() []console.Option { return console.Options(commandLine()) }

func usage() string {
	p := commandLine()
	return fmt.Sprintf("%s %s: %s\n\nUsage: %s\n\n%s%s\n%s\n", p.Name, version.Version, p.About, p.Usage[0], formHelp(forms()), p.OptionHelp(), p.Outro)
}

func formHelp(list []form) string {
	var b strings.Builder
	for _, f := range list {
		fmt.Fprintf(&b, "  pgmoneta-cli %s\n        %s\n", strings.TrimSpace(f.name()+" "+f.args), f.help)
	}
	return b.String()
}
