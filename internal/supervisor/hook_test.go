package supervisor

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hook")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// The tests of hooks are not run beside others: a file that was just written cannot be run
// while the start of another program still has it open.

// TestHookThatPrintsWithoutEndIsNotHeldInMemory counts what is allocated meanwhile.
func TestHookThatPrintsWithoutEndIsNotHeldInMemory(t *testing.T) {
	program := script(t, "echo the tape is not there\nhead -c 100000000 /dev/zero\nexit 3")
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	err := hookEvent{Server: "primary"}.tell(t.Context(), program)
	runtime.ReadMemStats(&after)
	if err == nil || !strings.Contains(err.Error(), "exit status 3: the tape is not there") || len(err.Error()) > 2000 {
		t.Errorf("%.200v", err)
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > 10<<20 {
		t.Errorf("%d bytes were allocated", n)
	}
}

func TestHookIsToldALongError(t *testing.T) {
	long := strings.Repeat("the disk is full\x00; ", 20000)
	program := script(t, `case "$PGMONETA_ERROR" in "the disk is full; "*) ;; *) exit 4;; esac; test "$(wc -c)" -gt 300000`)
	if err := (hookEvent{Server: "primary", Error: long}).tell(t.Context(), program); err != nil {
		t.Error(err)
	}
}
