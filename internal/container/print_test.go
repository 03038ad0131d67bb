package container

import "testing"

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
