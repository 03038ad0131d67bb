package pgrepl

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

// slowWrites returns from a write long after the bytes are on their way, as a
// machine with much else to do makes a write.
type slowWrites struct{ net.Conn }

func (c slowWrites) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	time.Sleep(50 * time.Millisecond)
	return n, err
}

// After a slow write pgconn reads in the background. What it reads must not be
// missing from a base backup or a stream.
func TestNothingElseReadsAfterASlowWrite(t *testing.T) {
	t.Parallel()
	pgtest.ForEach(t, func(t *testing.T, major int) {
		t.Parallel()
		ctx := context.Background()
		s := pgtest.Start(t, pgtest.Options{Major: major})
		slow := func() (*Conn, System) {
			c, err := Connect(ctx, params(s))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(c.Close)
			fast := c.in.Conn
			c.in.Conn = slowWrites{fast}
			system, err := c.System(ctx)
			if err != nil {
				t.Fatal(err)
			}
			c.in.Conn = fast
			return c, system
		}
		c, _ := slow()
		b, err := c.BaseBackup(ctx, BaseBackupOptions{Label: "slow"})
		if err != nil {
			t.Fatal(err)
		}
		for {
			if _, err = b.NextArchive(); err != nil {
				break
			}
			if _, err = io.Copy(io.Discard, b); err != nil {
				break
			}
		}
		if !errors.Is(err, io.EOF) {
			t.Error(err)
		}

		c, system := slow()
		stream, err := c.StartReplication(ctx, "", system.Timeline, system.Flush)
		if err != nil {
			t.Fatal(err)
		}
		for stream.Pending() {
			if _, err := stream.Receive(ctx, time.Now().Add(10*time.Second)); err != nil {
				t.Fatal(err)
			}
		}
		stream.Finish()
	})
}
