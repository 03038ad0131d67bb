package wal

import (
	"testing"

	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/pgrepl"
)

// A slot that had lost its WAL was brought back to life by the first status of
// a stream that the server was about to refuse, and looked as if it reserved it.
func TestALostSlotIsNotBroughtBackToLife(t *testing.T) {
	const start = 0x800000
	tests := []struct {
		name    string
		slot    pgrepl.Slot
		flushed pg.LSN
		want    pg.LSN
	}{
		{"lost, nothing received yet", pgrepl.Slot{Exists: true}, start, 0},
		{"lost, but the server still had the WAL", pgrepl.Slot{Exists: true}, start + 1, start + 1},
		{"the slot reserves WAL", pgrepl.Slot{Exists: true, Restart: start + 5}, start, start},
		{"no slot", pgrepl.Slot{}, start, start},
	}
	for _, tt := range tests {
		if got := acknowledged(tt.slot, start, tt.flushed); got != tt.want {
			t.Errorf("%s: acknowledged %s, want %s", tt.name, got, tt.want)
		}
	}
}
