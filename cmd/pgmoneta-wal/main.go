// Command pgmoneta-wal is the restore_command and archive_command of PostgreSQL
// for an archive of pgmoneta. It works on the repository's files and needs no
// daemon.
package main

import (
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
)

// briefMemory is where the garbage collector begins to work in a process that
// handles one file. Nearly all of its memory is buffers that it needs to the end,
// and collecting them now and then is work for nothing.
const briefMemory = 256 << 20

func main() {
	// PostgreSQL ends its commands with these signals. What an interrupted run
	// leaves is found by the next one, so that there is nothing to do but to go;
	// only Go's listing of goroutines has no place in the server's log.
	quit := make(chan os.Signal, 1)
	signal.Notify(quit, syscall.SIGQUIT)
	go func() {
		<-quit
		os.Exit(128 + int(syscall.SIGQUIT))
	}()
	if len(os.Args) > 1 && os.Args[1] == "get" {
		debug.SetGCPercent(-1)
		debug.SetMemoryLimit(briefMemory)
	}
	p := program{stdout: os.Stdout, stderr: os.Stderr, env: os.LookupEnv, spawn: spawn}
	os.Exit(p.run(os.Args[1:]))
}
