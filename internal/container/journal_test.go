package container

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

const journalName = "receive/000000010000000000000001"

// A memory is a file in memory that can be written at any place.
type memory struct{ b []byte }

func (m *memory) WriteAt(p []byte, at int64) (int, error) {
	if n := int(at) + len(p); n > len(m.b) {
		m.b = append(m.b, make([]byte, n-len(m.b))...)
	}
	return copy(m.b[at:], p), nil
}

func part(t testing.TB, m *memory, at int64, plain []byte, offset int64, lengths ...int) (next int64) {
	t.Helper()
	w, err := NewJournalWriter(m, at, 1<<20, journalName, AES256, testKey(t, 1))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range lengths {
		if err := w.Write(plain[offset:][:n], offset); err != nil {
			t.Fatal(err)
		}
		offset += int64(n)
	}
	return w.Next()
}

func journal(t testing.TB, b []byte) (*JournalReader, []byte) {
	t.Helper()
	r, err := OpenJournal(journalName, bytes.NewReader(b), ring(t))
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if err != nil || int64(len(got)) != r.End() {
		t.Fatalf("%d bytes, %v; End is %d", len(got), err, r.End())
	}
	r.Rewind()
	again, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(got, again) {
		t.Fatalf("read again: %d bytes, %v", len(again), err)
	}
	return r, got
}

func TestJournalKeepsWhatWasWritten(t *testing.T) {
	t.Parallel()
	plain := relation(3 * FrameLimit)
	m := &memory{}
	if r, got := journal(t, nil); len(got) != 0 || r.Next() != 0 {
		t.Errorf("an empty file has %d bytes, next is %d", len(got), r.Next())
	}
	next := part(t, m, 0, plain, 0, 1, 200, FrameLimit, 2*FrameLimit-500)
	r, got := journal(t, m.b)
	if !bytes.Equal(got, plain[:len(got)]) || len(got) != 3*FrameLimit-299 || r.Next() != next || r.Size() != 1<<20 {
		t.Errorf("%d bytes, next %d, size %d; want %d, %d, %d", len(got), r.Next(), r.Size(), 3*FrameLimit-299, next, 1<<20)
	}
	if bytes.Contains(m.b, plain[:32]) {
		t.Error("plain bytes are legible in the journal")
	}
}

func TestLaterPartOfAJournalCounts(t *testing.T) {
	t.Parallel()
	old, changed := relation(3000), bytes.ToUpper(relation(3000))
	m := &memory{}
	next := part(t, m, 0, old, 0, 500, 500)
	next = part(t, m, next, old, 1000, 500)
	next = part(t, m, next, changed, 800, 100, 300)
	part(t, m, next, old, 1200, 50)
	want := append(append(bytes.Clone(old[:800]), changed[800:1200]...), old[1200:1250]...)
	if _, got := journal(t, m.b); !bytes.Equal(got, want) {
		t.Errorf("%d bytes came back, want %d", len(got), len(want))
	}
}

func TestJournalEndsAtTheFirstRecordThatIsNotWhole(t *testing.T) {
	t.Parallel()
	plain := relation(3000)
	m := &memory{}
	ends := []int64{0}
	next := int64(0)
	for i := range 3 {
		next = part(t, m, next, plain, int64(i)*1000, 1000)
		ends = append(ends, next)
	}
	whole := func(n int) (records int) {
		for records+1 < len(ends) && int64(n) >= ends[records+1] {
			records++
		}
		return records
	}
	for n := range m.b {
		r, got := journal(t, m.b[:n])
		if want := plain[:1000*whole(n)]; !bytes.Equal(got, want) || r.Next() != ends[whole(n)] {
			t.Fatalf("cut at %d: %d bytes, next %d; want %d, %d", n, len(got), r.Next(), len(want), ends[whole(n)])
		}
		flipped := bytes.Clone(m.b)
		flipped[n] ^= 1 << (n % 8)
		opened, err := OpenJournal(journalName, bytes.NewReader(flipped), ring(t))
		if errors.As(err, new(*KeyError)) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(opened); err != nil || !bytes.Equal(got, plain[:1000*whole(n)]) {
			t.Fatalf("bit of byte %d flipped: %d bytes, %v; want %d", n, len(got), err, 1000*whole(n))
		}
	}
}

func TestJournalRecordsStayInTheirPlace(t *testing.T) {
	t.Parallel()
	plain := relation(2000)
	m := &memory{}
	first := part(t, m, 0, plain, 0, 1000)
	part(t, m, first, plain, 1000, 1000)
	for name, b := range map[string][]byte{
		"first part left out":    m.b[first:],
		"parts exchanged":        append(bytes.Clone(m.b[first:]), m.b[:first]...),
		"second part moved back": append(append(bytes.Clone(m.b[:first]), 0), m.b[first:]...),
		"first part twice":       append(bytes.Clone(m.b[:first]), m.b[:first]...),
	} {
		if _, got := journal(t, b); !bytes.HasPrefix(plain, got) || len(got) > 1000 {
			t.Errorf("%s: %d bytes came back", name, len(got))
		}
	}
	r, err := OpenJournal("receive/000000010000000000000002", bytes.NewReader(m.b), ring(t))
	if err != nil || r.End() != 0 {
		t.Errorf("under another name: %d bytes, %v", r.End(), err)
	}
	_, err = OpenJournal(journalName, bytes.NewReader(m.b), func(uint32) (Key, error) { return Key{}, ErrNoKeys })
	if !errors.As(err, new(*KeyError)) {
		t.Errorf("without keys: %v, want a KeyError: nothing must be taken for an end", err)
	}
}

func FuzzJournal(f *testing.F) {
	plain := relation(1000)
	m := &memory{}
	part(f, m, part(f, m, 0, plain, 0, 100, 400), plain, 300, 200, 500)
	f.Add(m.b)
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := OpenJournal(journalName, bytes.NewReader(b), ring(t))
		if err != nil {
			return
		}
		if got, err := io.ReadAll(r); err != nil || !bytes.HasPrefix(plain, got) {
			t.Errorf("%d bytes came out of a forged journal, %v", len(got), err)
		}
	})
}
