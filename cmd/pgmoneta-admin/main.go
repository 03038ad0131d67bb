// Command pgmoneta-admin keeps the secrets of pgmoneta: it creates the master key, edits the users and admins files, and
// rotates the keys of repositories. It works on files alone and needs no running daemon.
package main

import (
	"bufio"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/term"

	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/vault"
)

func main() {
	restoreTerminalOnSignal()
	p := program{
		stdin:   bufio.NewReader(os.Stdin),
		stdout:  os.Stdout,
		stderr:  os.Stderr,
		env:     os.LookupEnv,
		uid:     os.Geteuid(),
		loadKey: vault.LoadMasterKey,
		now:     time.Now,
		fs:      durable.OS{},
	}
	if fd := int(os.Stdin.Fd()); term.IsTerminal(fd) {
		p.readHidden = func() (string, error) {
			text, err := term.ReadPassword(fd)
			return string(text), err
		}
	}
	os.Exit(p.run(os.Args[1:]))
}

// restoreTerminalOnSignal ends the program on a signal, with the echo of the terminal as it was: a password prompt switches it off.
func restoreTerminalOnSignal() {
	fd := int(os.Stdin.Fd())
	state, err := term.GetState(fd)
	if err != nil {
		return
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		_ = term.Restore(fd, state)
		os.Exit(130)
	}()
}
