package main

import (
	"github.com/pgmoneta/pgmoneta-go/internal/cmdline"
	"github.com/pgmoneta/pgmoneta-go/internal/config"
	"github.com/pgmoneta/pgmoneta-go/internal/version"
)

// commandLine describes the program: options, help, completion and manual page are made of it.
func commandLine() *cmdline.Program {
	p := &cmdline.Program{
		Name:  name,
		About: "Administration of the secrets of pgmoneta",
		Usage: []string{name + " [ -f FILE ] [ OPTIONS ] COMMAND"},
		Groups: []cmdline.Group{{Title: "Options", Options: []cmdline.Option{
			{Short: "-f", Long: "--file", Arg: "FILE", Help: "users or admins file", For: []string{"user add", "user edit", "user del", "user ls"}},
			{Short: "-U", Long: "--user", Arg: "USER", Help: "user name", For: []string{"user add", "user edit", "user del"}},
			{Short: "-P", Long: "--password", Arg: "PASSWORD", Help: "password; visible in the process list, prefer the prompt or PGMONETA_PASSWORD"},
			{Short: "-g", Long: "--generate", Help: "generate a password"},
			{Short: "-l", Long: "--length", Arg: "LENGTH", Help: "length of the generated password, 1 to 1024, default 64"},
			{Short: "-F", Long: "--format", Arg: "text|json", Words: []string{"text", "json"}, Help: "output format"},
			{Short: "-c", Long: "--config", Arg: "FILE", Help: "configuration of the daemon, for rotate; default /etc/pgmoneta/pgmoneta.conf", For: rotations()},
			{Short: "-D", Long: "--directory", Arg: "DIRECTORY", Help: "directory of the daemon's configuration, users and admins files, for rotate", For: rotations()},
			{Short: "-s", Long: "--server", Arg: "SERVER", Help: "only the repository of this server, for key rotate", For: []string{"key rotate"}},
			{Short: "-V", Long: "--version", Help: "show the version"},
			{Short: "-?", Long: "--help", Help: "show this help"},
		}}},
		Files: []cmdline.Entry{
			{Name: "~/.pgmoneta/master.key", Help: "the master key"},
			{Name: "/etc/pgmoneta/pgmoneta_users.conf", Help: "passwords of the roles that the daemon connects as"},
			{Name: "/etc/pgmoneta/pgmoneta_admins.conf", Help: "who may use the daemon from other machines"},
		},
		SeeAlso: []string{"pgmoneta(1)", "pgmoneta-cli(1)", "pgmoneta-config(1)", "pgmoneta-wal(1)", "pgmoneta.conf(5)"},
	}
	for _, c := range commands() {
		p.Commands = append(p.Commands, cmdline.Command{Name: c.name, Help: c.help})
	}
	p.Commands = append(p.Commands, cmdline.Command{Name: cmdline.Verb, Args: "bash|zsh|fish", Help: "print what makes a shell complete these command lines"})
	return p
}

func rotations() []string { return []string{"master-key rotate", "key rotate"} }

func usage() string {
	p := commandLine()
	return p.Help(version.Version) + "\nCommands:\n" + p.CommandHelp()
}

// values returns what may stand for an argument on the command line.
func (p *program) values(name string, words []string) []string {
	args, err := parseArguments(words)
	if name != "server" || err != nil {
		return nil
	}
	files, err := config.Locate(config.Flags{Config: args.values["config"], Directory: args.values["directory"]}, p.env)
	if err != nil {
		return nil
	}
	return config.ServerNames(files.Config)
}
