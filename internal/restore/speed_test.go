package restore

import (
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

func TestTheLastSpeedCounts(t *testing.T) {
	t.Parallel()
	r, err := repo.Open(durable.OS{}, t.TempDir(), "primary")
	if err != nil {
		t.Fatal(err)
	}
	for _, bytes := range []int64{1000, 5000} {
		recordSpeed(r, speed{Label: "20261121120000", Bytes: bytes, Elapsed: time.Second})
		if got, from := expectedSpeed(r); got != bytes {
			t.Errorf("%d bytes per second from %s, want %d", got, from, bytes)
		}
	}
}
