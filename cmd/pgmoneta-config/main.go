// Command pgmoneta-config makes, shows and edits a pgmoneta.conf. It works on the file alone and needs no running daemon: a daemon that runs reads the
// file again after "pgmoneta-cli conf reload".
package main

import (
	"bufio"
	"os"

	"golang.org/x/term"

	"github.com/pgmoneta/pgmoneta-go/internal/durable"
)

func main() {
	p := program{
		stdin:    bufio.NewReader(os.Stdin),
		stdout:   os.Stdout,
		stderr:   os.Stderr,
		terminal: term.IsTerminal(int(os.Stdin.Fd())),
		env:      os.LookupEnv,
		uid:      os.Getuid(),
		fs:       durable.OS{},
	}
	os.Exit(p.run(os.Args[1:]))
}
