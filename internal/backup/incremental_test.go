package backup

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// incrementalFile makes one with blocks of 64 zeros.
func incrementalFile(magic, truncation uint32, blocks ...uint32) []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, magic)
	b = le.AppendUint32(b, uint32(len(blocks)))
	b = le.AppendUint32(b, truncation)
	for _, n := range blocks {
		b = le.AppendUint32(b, n)
	}
	for len(blocks) > 0 && len(b)%tinyBlock > 0 {
		b = append(b, 0)
	}
	return append(b, make([]byte, tinyBlock*len(blocks))...)
}

func TestBlockMap(t *testing.T) {
	tests := []struct {
		name string
		file []byte
		size int64 // of the whole file
		err  string
	}{
		{"nothing has changed", incrementalFile(incrementalMagic, 7), 7 * tinyBlock, ""},
		{"the end is gone", incrementalFile(incrementalMagic, 0), 0, ""},
		{"some blocks", incrementalFile(incrementalMagic, 7, 0, 3, 4), 7 * tinyBlock, ""},
		{"blocks behind the end", incrementalFile(incrementalMagic, 2, 9), 10 * tinyBlock, ""},
		{"header of exactly a block", incrementalFile(incrementalMagic, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13), 20 * tinyBlock, ""},
		{"another magic", incrementalFile(incrementalMagic+1, 7), 0, "no incremental file"},
		{"not ascending", incrementalFile(incrementalMagic, 7, 3, 3), 0, "block 3 after block 3"},
		{"far away", incrementalFile(incrementalMagic, 7, 1<<30), 0, "block 1073741824"},
		{"very long", incrementalFile(incrementalMagic, 1<<30), 0, "length of 1073741824 blocks"},
		{"cut off", incrementalFile(incrementalMagic, 7, 1, 2)[:100], 0, "claims 2 blocks in 100 bytes"},
		{"too long", append(incrementalFile(incrementalMagic, 7, 1), 1), 0, "want 128"},
		{"without a head", []byte{1, 2}, 0, "unexpected EOF"},
	}
	for _, tt := range tests {
		m, err := readBlockMap(bytes.NewReader(tt.file), int64(len(tt.file)), tinyBlock)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: %v, want %q", tt.name, err, tt.err)
			}
			continue
		}
		if err != nil || m.size(tinyBlock) != tt.size {
			t.Errorf("%s: size %d, %v; want %d", tt.name, m.size(tinyBlock), err, tt.size)
		}
	}
}

func FuzzBlockMap(f *testing.F) {
	f.Add(incrementalFile(incrementalMagic, 7))
	f.Add(incrementalFile(incrementalMagic, 7, 0, 3, 4))
	f.Fuzz(func(t *testing.T, file []byte) {
		m, err := readBlockMap(bytes.NewReader(file), int64(len(file)), tinyBlock)
		if err != nil {
			return
		}
		if got := m.length + int64(len(m.blocks))*tinyBlock; got != int64(len(file)) {
			t.Errorf("%d bytes accepted as %d", len(file), got)
		}
		at := int64(0)
		_ = m.kept(1<<20, tinyBlock, func(from, to int64) error {
			if from < at || to <= from {
				t.Errorf("kept %d to %d after %d", from, to, at)
			}
			at = to
			return nil
		})
	})
}

func TestOnlyRelationsAreSentInBlocks(t *testing.T) {
	for name, want := range map[string]string{
		"base/5/INCREMENTAL.1259": "base/5/1259", "global/INCREMENTAL.1262": "global/1262", "pg_tblspc/1/PG_17/5/INCREMENTAL.7.1": "pg_tblspc/1/PG_17/5/7.1",
		"INCREMENTAL.x": "", "pg_xact/INCREMENTAL.0000": "", "base/5/INCREMENTAL.": "", "base/5/1259": "", "mine/INCREMENTAL.1": "",
	} {
		if got, ok := wholeName(name); got != want || ok != (want != "") {
			t.Errorf("wholeName(%q) = %q, %t; want %q", name, got, ok, want)
		}
	}
}

// A page of the server counts as missed when it was logged between the two backups and
// is not what the base has.
func TestPageLSNDecidesWhatWasMissed(t *testing.T) {
	c := checker{job: &job{summary: repo.Summary{Start: 0x2_0000_0000}}, base: &base{summary: repo.Summary{Start: 0x1_0000_0010}}}
	page := func(high, low uint32, fill byte) []byte {
		b := bytes.Repeat([]byte{fill}, tinyBlock)
		binary.LittleEndian.PutUint32(b, high)
		binary.LittleEndian.PutUint32(b[4:], low)
		return b
	}
	tests := []struct {
		name         string
		page, stored []byte
		want         bool
	}{
		{"older than the base, hint bits", page(1, 0, 1), page(1, 0, 2), false},
		{"first position of the base", page(1, 0x10, 1), page(1, 0, 1), true},
		{"in between", page(1, 0xFFFFFFFF, 1), page(1, 0, 1), true},
		{"in between and equal", page(1, 0x20, 1), page(1, 0x20, 1), false},
		{"of this backup", page(2, 0, 1), page(1, 0, 1), false},
		{"never initialised", make([]byte, tinyBlock), page(1, 0, 1), false},
	}
	for _, tt := range tests {
		if got := c.missed(tt.page, tt.stored); got != tt.want {
			t.Errorf("%s: %t, want %t", tt.name, got, tt.want)
		}
	}
}

func TestProtectionOrdersCiphers(t *testing.T) {
	for weaker, stronger := range map[string]string{"none": "aes-128-gcm", "aes-128-gcm": "aes-192-gcm", "aes-192": "aes-256", "": "aes-128"} {
		if protection(weaker) >= protection(stronger) {
			t.Errorf("%q protects no less than %q", weaker, stronger)
		}
	}
}

// The table of known frames finds every frame, in its pack, however many there are.
func TestKnownFramesAreFound(t *testing.T) {
	k := newKnown()
	const packs, frames = 7, 3000
	printer, err := container.NewPrinter([container.PrintKeySize]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	print := func(n int) container.Print { return printer.Print([]byte{byte(n), byte(n >> 8), byte(n >> 16)}) }
	for p := range packs {
		k.begin(repo.PackName("20261121120000", p+1))
		for n := range frames {
			k.add(container.Frame{Plain: uint32(n), Print: print(p*frames + n)})
		}
		k.add(container.Frame{Print: print(0)}) // again: the first serves
	}
	for n := range packs * frames {
		at, found := k.find(print(n))
		pack, number := k.place(at)
		plain, ok := k.plain(pack, number)
		if !found || pack != n/frames || number != n%frames || !ok || plain != int64(n%frames) {
			t.Fatalf("frame %d: pack %d, number %d, plain %d, %t %t", n, pack, number, plain, found, ok)
		}
	}
	if _, found := k.find(print(packs * frames)); found {
		t.Error("a frame was found that is not there")
	}
	if _, ok := k.plain(0, frames+1); ok {
		t.Error("a pack has a frame too many")
	}
}

// A base whose packs are gone, cut off or marked as damaged is passed over for an older one.
func TestOnlyBasesThatCanBeTrustedAreReferredTo(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, 1, coding{codec: container.None})
	for _, l := range []repo.Label{"20261121120001", "20261121120002", "20261121120003"} {
		w.live["pg_xact/"+string(l)] = string(l)
		if err := w.backup(ctx, l, ""); err != nil {
			t.Fatal(err)
		}
	}
	chosen := func(cipher string) repo.Label {
		t.Helper()
		j := &job{Options: Options{Repo: w.repo, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}, summary: repo.Summary{System: "1", Cipher: cipher}}
		b, _, err := j.openBase(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if b == nil {
			return ""
		}
		defer b.close()
		return b.summary.Label
	}
	want := func(what, cipher string, label repo.Label) {
		t.Helper()
		if got := chosen(cipher); got != label {
			t.Errorf("%s: base %q, want %q", what, got, label)
		}
	}
	want("three whole backups", "none", "20261121120003")
	want("none of them encrypted", "aes-256-gcm", "")
	mark := map[string]error{repo.PackName("20261121120003", 1): errors.New("rotten")}
	if err := w.repo.RecordDamage(ctx, time.Now(), nil, mark); err != nil {
		t.Fatal(err)
	}
	want("the newest is damaged", "none", "20261121120002")
	pack := filepath.Join(w.repo.Dir(), repo.PackName("20261121120002", 1))
	if err := os.Truncate(pack, 100); err != nil {
		t.Fatal(err)
	}
	want("the one before is cut off", "none", "20261121120001")
	if err := os.Remove(filepath.Join(w.repo.Dir(), repo.PackName("20261121120001", 1))); err != nil {
		t.Fatal(err)
	}
	want("the oldest has lost a pack", "none", "")
}
