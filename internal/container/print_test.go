package container

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"testing"
)

func TestPrintsTellDataAndKeysApart(t *testing.T) {
	t.Parallel()
	printers := make([]*Printer, 2)
	for i := range printers {
		var err error
		if printers[i], err = NewPrinter([PrintKeySize]byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[Print]string{}
	for _, data := range []string{"", "\x00", "\x00\x00", "a", "b", "ab", string(make([]byte, 16)), string(make([]byte, 17)), string(make([]byte, FrameLimit))} {
		for _, p := range printers {
			print := p.Print([]byte(data))
			if other, ok := seen[print]; ok {
				t.Errorf("%.20q and %.20q have the same print", data, other)
			}
			seen[print] = data
			if print != p.Print([]byte(data)) {
				t.Errorf("%.20q has two prints", data)
			}
		}
	}
}

// A print saves the SHA-256 and never takes its place: what has the wrong print,
// because its key was lost, is whole if its SHA-256 says so.
func TestPrintsAreNoReasonToRefuse(t *testing.T) {
	t.Parallel()
	var printers [2]*Printer
	for i := range printers {
		var err error
		if printers[i], err = NewPrinter([PrintKeySize]byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
	}
	plain := bytes.Repeat([]byte("page"), 1000)
	for _, tt := range []struct {
		name    string
		stored  []byte
		printer *Printer
		sum     [32]byte
		damaged bool
	}{
		{"whole", plain, printers[0], sha256.Sum256(plain), false},
		{"whole, and its SHA-256 is not looked at", plain, printers[0], [32]byte{}, false},
		{"whole, print of another key", plain, printers[1], sha256.Sum256(plain), false},
		{"damaged", append([]byte("P"), plain[1:]...), printers[0], sha256.Sum256(plain), true},
		{"damaged, print of another key", append([]byte("P"), plain[1:]...), printers[1], sha256.Sum256(plain), true},
	} {
		var b bytes.Buffer
		w, err := NewWriter(&b, Header{Kind: Pack, Codec: None})
		if err != nil {
			t.Fatal(err)
		}
		length := uint32(len(plain))
		if _, err := w.WriteFrame(tt.stored, Frame{Plain: length, Stored: length, Sum: tt.sum, Print: printers[0].Print(plain)}); err != nil {
			t.Fatal(err)
		}
		if err := w.Finish(); err != nil {
			t.Fatal(err)
		}
		r, err := NewReader("pack/1/1", bytes.NewReader(b.Bytes()), int64(b.Len()), Pack)
		if err != nil {
			t.Fatal(err)
		}
		r.UsePrinter(tt.printer)
		var s Scratch
		var damage *DamagedError
		if _, err := r.ReadFrame(0, &s); errors.As(err, &damage) != tt.damaged {
			t.Errorf("%s: %v", tt.name, err)
		}
		s.Close()
	}
}

func BenchmarkPrint(b *testing.B) {
	p, err := NewPrinter([PrintKeySize]byte{})
	if err != nil {
		b.Fatal(err)
	}
	data := make([]byte, 128<<10)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		p.Print(data)
	}
}
