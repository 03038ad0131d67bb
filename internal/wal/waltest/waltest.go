// Package waltest receives the WAL of test servers, for tests of what needs an archive beside a running server.
package waltest

import (
	"context"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/pgrepl"
	"github.com/pgmoneta/pgmoneta-go/internal/vault"
	"github.com/pgmoneta/pgmoneta-go/internal/wal"
	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

// Params returns how to connect to a server, which has the name primary.
func Params(s *pgtest.Server) pgrepl.Params {
	return pgrepl.Params{Server: "primary", Host: s.Host, Port: s.Port, User: pgtest.ReplUser, Password: vault.NewSecret(pgtest.ReplPassword)}
}

// Receive runs a receiver for a server until the test ends. It may not have begun when Receive returns. The caller
// says where the WAL goes, who watches and who logs; the slot is pgmoneta unless it says another.
func Receive(t testing.TB, s *pgtest.Server, r *wal.Receiver) {
	t.Helper()
	r.Params, r.FS, r.CreateSlot = Params(s), durable.OS{}, true
	if r.Slot == "" {
		r.Slot = "pgmoneta"
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
