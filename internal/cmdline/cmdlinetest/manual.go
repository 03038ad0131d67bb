// Package cmdlinetest keeps the manual pages in doc/man what the tables of the programs say.
package cmdlinetest

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/internal/cmdline"
)

// update reports whether the test binary was called with -update, a flag that its package has to define.
func update() bool {
	f := flag.Lookup("update")
	return f != nil && f.Value.String() == "true"
}

// ManualPage fails when the page in doc/man is another one, or writes it with -update. Formatters that are installed
// must have nothing to say about it.
func ManualPage(t *testing.T, page *cmdline.Page) {
	t.Helper()
	path := filepath.Join("..", "..", "doc", "man", fmt.Sprintf("%s.%d", page.Name, page.Section))
	want := page.Roff()
	if update() {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is not current: run make man", path)
	}
	for _, check := range []string{"groff -man -Tutf8 -ww -rLL=80n -z", "mandoc -T lint -W warning"} {
		words := append(strings.Fields(check), path)
		program, err := exec.LookPath(words[0])
		if err != nil {
			t.Logf("%s is not installed: not checked by it", words[0])
			continue
		}
		out, err := exec.Command(program, words[1:]...).CombinedOutput()
		if err != nil || len(out) > 0 {
			t.Errorf("%s: %v\n%s", strings.Join(words, " "), err, out)
		}
	}
}
