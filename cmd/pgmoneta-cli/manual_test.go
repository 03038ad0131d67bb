package main

import (
	"testing"

	"github.com/pgmoneta/pgmoneta-go/internal/cmdline/cmdlinetest"
	"github.com/pgmoneta/pgmoneta-go/internal/version"
)

func TestManualPageIsCurrent(t *testing.T) {
	t.Parallel()
	cmdlinetest.ManualPage(t, commandLine().Manual(version.Version))
}
