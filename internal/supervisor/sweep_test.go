package supervisor

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

// TestWALDoesNotWaitForLeftovers has a server of a rehearsal that was killed, which does
// not stop when it is told to: WAL is received all the same, and it goes once it can.
func TestWALDoesNotWaitForLeftovers(t *testing.T) {
	s := pgtest.Start(t, pgtest.Options{})
	dir := t.TempDir()
	left := filepath.Join(dir, "base", "primary", "tmp", "rehearsal", "primary-20261121000000")
	if err := os.MkdirAll(left, 0o700); err != nil {
		t.Fatal(err)
	}
	stubborn := exec.Command("sh", "-c", `trap "" QUIT; echo; read line`)
	stubborn.Dir = left
	input, err := stubborn.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	output, err := stubborn.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := stubborn.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := output.Read(make([]byte, 1)); err != nil { // it ignores the signal from now on
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(left, "postmaster.pid"), fmt.Appendf(nil, "%d\n", stubborn.Process.Pid), 0o600); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	bed(t, s, dir)
	waitStreaming(t, dir)
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %s until WAL was received", took)
	}
	if _, err := os.Stat(left); err != nil {
		t.Errorf("the leftover is gone already: %v", err)
	}
	if err := input.Close(); err != nil {
		t.Fatal(err)
	}
	_ = stubborn.Wait() // its status is that of read
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); ; <-tick.C {
		if _, err := os.Stat(left); os.IsNotExist(err) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the leftover stays")
		}
	}
}
