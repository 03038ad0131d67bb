package main

import (
	"github.com/pgmoneta/pgmoneta-go/internal/config"
	"github.com/pgmoneta/pgmoneta-go/internal/console"
)

// completion prints what makes a shell complete our command lines, and answers what that asks. It needs no daemon.
func (p *program) completion(args []string) int {
	if err := commandLine().Answer(p.stdout, args, p.values); err != nil {
		p.complain(err.Error())
		return exitUsage
	}
	return exitOK
}

// values returns what may stand for an argument. What takes more than to read a file is not offered.
func (p *program) values(name string, words []string) []string {
	switch name {
	case "server":
		return p.servers(words)
	case "backup":
		return []string{"newest", "oldest", "latest"}
	case "position":
		return []string{"latest", "current"}
	case "key":
		if len(words) > 0 && words[0] == "conf" {
			return config.MainKeys()
		}
	}
	return nil
}

// servers returns the sections of the daemon's configuration: of the file of --config when it has any, else of the
// file in its usual place. A file that is wrong, or that we may not read, names none.
func (p *program) servers(words []string) []string {
	o, err := console.ParseArgs(options(), words)
	if err != nil {
		return nil
	}
	names := config.ServerNames(p.daemonFile(o))
	if len(names) == 0 && o.Has("--config") {
		names = config.ServerNames(p.daemonFile(&console.Args{}))
	}
	return names
}
