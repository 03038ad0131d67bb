package main

import (
	"github.com/pgmoneta/pgmoneta-go/internal/cmdline"
	"github.com/pgmoneta/pgmoneta-go/internal/config"
	"github.com/pgmoneta/pgmoneta-go/internal/console"
	"github.com/pgmoneta/pgmoneta-go/internal/version"
)

// commandLine describes the program: options, help, completion and manual page are made of it.
func commandLine() *cmdline.Program {
	forInit := []string{"init"}
	answers := cmdline.Group{Title: "Answers for init, which then does not ask for them"}
	for _, q := range questions() {
		answers.Options = append(answers.Options, cmdline.Option{Long: q.option, Arg: q.arg, Words: q.words, Help: q.help, For: forInit})
	}
	p := &cmdline.Program{
		Name:  name,
		About: "Makes, shows and edits the configuration of pgmoneta",
		Usage: []string{name + " [ OPTIONS ] COMMAND"},
		Intro: `A value is written, and shown, as it stands in the file: in quotes where it has a
# or a ;. What the daemon would not read, or not start with, is not written.`,
		Groups: []cmdline.Group{
			{Title: "Options", Options: []cmdline.Option{
				{Short: "-o", Long: "--output", Arg: "FILE", Help: "the file that init makes, default ./pgmoneta.conf", For: forInit},
				{Short: "-q", Long: "--quiet", Help: "init asks nothing", For: forInit},
				{Short: "-F", Long: "--force", Help: "init replaces a file; set adds a section whose name looks like a slip", For: []string{"init", "set"}},
				{Short: "-V", Long: "--version", Help: "show the version"},
				{Short: "-?", Long: "--help", Help: "show this help"},
			}},
			answers,
		},
		Outro:   "A word that begins with a dash comes after --: set FILE SECTION KEY -- -1",
		Files:   []cmdline.Entry{{Name: "/etc/pgmoneta/pgmoneta.conf", Help: "the configuration of the daemon, unless it is started with another"}},
		SeeAlso: []string{"pgmoneta(1)", "pgmoneta-cli(1)", "pgmoneta.conf(5)"},
	}
	for _, c := range commands() {
		p.Commands = append(p.Commands, cmdline.Command{Name: c.name, Args: c.args, Help: c.help})
	}
	p.Commands = append(p.Commands, cmdline.Command{Name: cmdline.Verb, Args: "bash|zsh|fish", Help: "print what makes a shell complete these command lines"})
	return p
}

func usage() string {
	p := commandLine()
	return p.Help(version.Version) + "\nCommands:\n" + p.CommandHelp()
}

// values returns what may stand for an argument on the command line: a section of the file, a key of its section, or for set one that the section could have.
func (p *program) values(name string, words []string) []string {
	args, err := console.ParseArgs(console.Options(commandLine()), words)
	if err != nil || len(args.Words) < 2 {
		return nil
	}
	text, err := config.ReadText(args.Words[1])
	if err != nil {
		return nil
	}
	switch {
	case name == "section":
		return text.Sections()
	case name != "key" || len(args.Words) < 3:
		return nil
	case args.Words[0] != "set":
		keys, _ := text.Keys(args.Words[2])
		return keys
	case args.Words[2] == config.MainSection:
		return config.MainKeys()
	}
	return config.ServerKeys()
}
