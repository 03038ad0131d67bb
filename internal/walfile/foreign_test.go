package walfile

import (
	"bytes"
	"compress/gzip"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestGetDeliversWhatCPgmonetaLeft(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	left := func(file string, content []byte) {
		path := filepath.Join(b.repo.Dir(), "wal", file)
		b.must(os.MkdirAll(filepath.Dir(path), 0o700))
		b.must(os.WriteFile(path, content, 0o600))
	}
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, err := w.Write(content(name(1, 1)))
	b.must(errors.Join(err, w.Close()))
	left(name(1, 1)+".gz", packed.Bytes())
	left(name(1, 2), content(name(1, 2)))
	left(name(1, 3)+".partial", content(name(1, 3)))
	left(name(1, 4), contentOf(name(1, 4), 1, testSegment))
	left(name(1, 5), content(name(1, 6)))
	left(name(1, 7)+".gz", packed.Bytes()[:packed.Len()/2])
	left("00000002.history", append([]byte(testHistory), 0))
	left("0000000a.history", append([]byte(testHistory), 0))
	for file, want := range map[string][]byte{
		name(1, 1): content(name(1, 1)), name(1, 2): content(name(1, 2)),
		"00000002.history": []byte(testHistory), "0000000A.history": []byte(testHistory),
	} {
		if got, err := b.get(b.getter(), file); err != nil || !bytes.Equal(got, want) {
			t.Errorf("get %s: %d bytes, %v; want %d", file, len(got), err, len(want))
		}
	}
	var other *ForeignError
	if _, err := b.get(b.getter(), name(1, 4)); !errors.As(err, &other) {
		t.Errorf("a segment of another cluster: %v", err)
	}
	for _, file := range []string{name(1, 5), name(1, 7)} {
		if got, err := b.get(b.getter(), file); err == nil || errors.Is(err, ErrNotArchived) || len(got) > 0 {
			t.Errorf("get %s, which is damaged: %d bytes, %v", file, len(got), err)
		}
	}
	// What is missing between two of theirs is a hole, not the end of the archive.
	var hole *HoleError
	left(name(1, 9), content(name(1, 9)))
	if _, err := b.get(b.getter(), name(1, 8)); !errors.As(err, &hole) {
		t.Errorf("a hole: %v", err)
	}
}
