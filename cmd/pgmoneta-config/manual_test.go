package main

import (
	"flag"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/internal/cmdline/cmdlinetest"
	"github.com/pgmoneta/pgmoneta-go/internal/version"
)

var _ = flag.Bool("update", false, "rewrite the manual page")

func TestManualPageIsCurrent(t *testing.T) {
	t.Parallel()
	cmdlinetest.ManualPage(t, commandLine().Manual(version.Version))
}
