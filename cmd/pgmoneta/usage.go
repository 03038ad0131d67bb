package main

import "github.com/pgmoneta/pgmoneta-go/internal/cmdline"

// commandLine describes the program: options, help, completion and manual page are made of it.
func commandLine() *cmdline.Program {
	return &cmdline.Program{
		Name:  "pgmoneta",
		About: "Backup and WAL daemon for PostgreSQL",
		Usage: []string{
			"pgmoneta [ -c CONFIG_FILE ] [ -u USERS_FILE ] [ -A ADMINS_FILE ] [ -D DIRECTORY ] [ -d ]",
			"pgmoneta restore ...        the same as pgmoneta-cli restore ...",
			"pgmoneta completion bash|zsh|fish",
		},
		Groups: []cmdline.Group{{Title: "Options", Options: []cmdline.Option{
			{Short: "-c", Long: "--config", Arg: "CONFIG_FILE", Help: "configuration, default /etc/pgmoneta/pgmoneta.conf"},
			{Short: "-u", Long: "--users", Arg: "USERS_FILE", Help: "users, default /etc/pgmoneta/pgmoneta_users.conf"},
			{Short: "-A", Long: "--admins", Arg: "ADMINS_FILE", Help: "admins, default /etc/pgmoneta/pgmoneta_admins.conf"},
			{Short: "-D", Long: "--directory", Arg: "DIRECTORY", Help: "directory that holds all three"},
			{Short: "-d", Long: "--daemon", Help: "run in the background; the command ends when the daemon answers requests, or with the reason why it does not"},
			{Short: "-V", Long: "--version", Help: "print the version"},
			{Short: "-?", Long: "--help", Help: "print this help"},
		}}},
		Outro: `Signals:
  TERM, INT, ALRM   stop in order
  HUP               read the configuration again
  USR1              open the metrics and the management listener again`,
		Files: []cmdline.Entry{
			{Name: "/etc/pgmoneta", Help: "the three files, looked for after the directory that PGMONETA_CONFIG_DIR names"},
			{Name: "~/.pgmoneta/master.key", Help: "the master key"},
		},
		SeeAlso: []string{"pgmoneta-cli(1)", "pgmoneta-admin(1)", "pgmoneta-config(1)", "pgmoneta-wal(1)", "pgmoneta.conf(5)"},
	}
}
