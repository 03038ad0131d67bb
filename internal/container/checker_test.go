package container

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"sync"
	"testing"
)

// frames makes a pack of n frames of different lengths, every seventh of which was dropped.
func frames(t testing.TB, codec Codec, n int) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := NewWriter(&out, Header{Kind: Pack, Codec: codec})
	if err != nil {
		t.Fatal(err)
	}
	enc, err := NewEncoder(codec, 3)
	if err != nil {
		t.Fatal(err)
	}
	content := relation(n + 40<<10)
	for i := range n {
		plain := content[i:]
		switch {
		case i == 3:
			plain = relation(FrameLimit)
		case i%5 == 0:
			plain = plain[:1+i]
		default:
			plain = plain[:40<<10]
		}
		stored, f, err := enc.Append(nil, plain)
		if err != nil {
			t.Fatal(err)
		}
		if i%7 == 6 {
			w.DropFrame(f)
		} else if _, err := w.WriteFrame(stored, f); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func open(t *testing.T, b []byte) *Reader {
	t.Helper()
	r, err := NewReader("pack/test/1", bytes.NewReader(b), int64(len(b)), Pack)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// found returns what a checker tells of each frame, and what reading them one by one does.
func found(t *testing.T, k *Checker, r *Reader) (checked, read map[int]string) {
	t.Helper()
	text := func(err error) string {
		if err != nil {
			return err.Error()
		}
		return "whole"
	}
	var mu sync.Mutex
	checked, read = map[int]string{}, map[int]string{}
	err := k.Check(t.Context(), r, func(i int, err error) {
		mu.Lock()
		defer mu.Unlock()
		if checked[i] != "" {
			t.Errorf("frame %d was checked twice", i)
		}
		checked[i] = text(err)
	})
	if err != nil {
		t.Error(err)
	}
	var s Scratch
	defer s.Close()
	for i := range r.Frames() {
		if r.Frame(i).Dropped() {
			continue
		}
		_, err := r.ReadFrame(i, &s)
		read[i] = text(err)
	}
	return checked, read
}

func TestCheckerFindsWhatReadingFinds(t *testing.T) {
	k := NewChecker(3)
	defer k.Close()
	for _, codec := range codecs {
		b := frames(t, codec, 120)
		checked, read := found(t, k, open(t, b))
		if len(checked) != 120-120/7 || !maps.Equal(checked, read) {
			t.Errorf("%s: %d frames, %v, by reading %v", codec, len(checked), checked, read)
		}
		for at := headerSize; at < len(b)-120*entrySize-trailerSize-8; at += 1 + len(b)/4 {
			damaged := bytes.Clone(b)
			damaged[at] ^= 0x40
			if checked, read := found(t, k, open(t, damaged)); !maps.Equal(checked, read) {
				t.Errorf("%s: byte %d flipped: %v, by reading %v", codec, at, checked, read)
			}
		}
	}
}

func TestCheckerEndsWithItsContext(t *testing.T) {
	k := NewChecker(2)
	defer k.Close()
	r := open(t, frames(t, None, 1000))
	enough := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	var mu sync.Mutex
	n := 0
	err := k.Check(ctx, r, func(int, error) {
		mu.Lock()
		defer mu.Unlock()
		if n++; n == 100 {
			cancel(enough)
		}
	})
	if !errors.Is(err, enough) || n > 100+2*16 {
		t.Errorf("%d frames, %v", n, err)
	}
}
