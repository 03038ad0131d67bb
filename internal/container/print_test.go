package container

import (
	"bytes"
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

// A frame that has a print is checked by it, and damage is found.
func TestPrintsFindDamage(t *testing.T) {
	t.Parallel()
	p, err := NewPrinter([PrintKeySize]byte{9})
	if err != nil {
		t.Fatal(err)
	}
	for _, damaged := range []bool{false, true} {
		plain := bytes.Repeat([]byte("page"), 1000)
		var b bytes.Buffer
		w, err := NewWriter(&b, Header{Kind: Pack, Codec: None})
		if err != nil {
			t.Fatal(err)
		}
		stored := bytes.Clone(plain)
		if damaged {
			stored[77]++
		}
		if _, err := w.WriteFrame(stored, Frame{Plain: uint32(len(plain)), Stored: uint32(len(plain)), Print: p.Print(plain)}); err != nil {
			t.Fatal(err)
		}
		if err := w.Finish(); err != nil {
			t.Fatal(err)
		}
		r, err := NewReader("pack/1/1", bytes.NewReader(b.Bytes()), int64(b.Len()), Pack)
		if err != nil {
			t.Fatal(err)
		}
		r.UsePrinter(p)
		var s Scratch
		defer s.Close()
		var damage *DamagedError
		if _, err := r.ReadFrame(0, &s); errors.As(err, &damage) != damaged {
			t.Errorf("damaged %t: %v", damaged, err)
		}
		r.UsePrinter(nil)
		if _, err := r.ReadFrame(0, &s); !errors.As(err, &damage) {
			t.Errorf("a frame without a SHA-256 passes: %v", err)
		}
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
