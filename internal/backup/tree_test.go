package backup

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"strings"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/datadir"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/manifest"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// A fakeTree has one file; without content it is gone when it is read, as over SQL.
type fakeTree struct{ content string }

func (f fakeTree) List(context.Context, string) ([]datadir.File, error) { return nil, nil }
func (f fakeTree) Close() error                                         { return nil }

func (f fakeTree) Open(context.Context, string) (datadir.Handle, error) {
	return fakeHandle{strings.NewReader(f.content)}, nil
}

type fakeHandle struct{ *strings.Reader }

func (fakeHandle) Close() error      { return nil }
func (fakeHandle) Want(int64, int64) {}

func (h fakeHandle) ReadAt(p []byte, at int64) (int, error) {
	if h.Size() == 0 {
		return 0, fs.ErrNotExist
	}
	return h.Reader.ReadAt(p, at)
}

// takes reads a file of a tree into a pipeline, which broke before if broken is set.
func takes(t *testing.T, tree fakeTree, broken error) (*files, error) {
	t.Helper()
	ctx := t.Context()
	r, err := repo.Open(durable.OS{}, t.TempDir(), "primary")
	if err != nil {
		t.Fatal(err)
	}
	rows, err := r.NewManifestWriter(ctx, "20261121120000")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Abort()
	pipe, err := newPipeline(ctx, r, "20261121120000", layout{codec: container.None, workers: 1, frame: smallFrame, pack: repo.PackTarget}, newKnown(), rows)
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.abort(context.Canceled)
	if broken != nil {
		pipe.abort(broken)
		for range cap(pipe.free) { // else a frame may be had all the same
			<-pipe.free
		}
	}
	file := datadir.File{Path: "base/1/100", Size: 8192}
	reader, err := datadir.Open(ctx, tree, file)
	if err != nil {
		t.Fatal(err)
	}
	b := &treeBackup{job: &job{}, reading: &reading{tree: tree}, files: &files{pipe: pipe, received: func(int64) {}}, pace: newPace(0), list: manifest.NewWriter(io.Discard, 0)}
	return b.files, b.take(ctx, opened{file: file, reader: reader})
}

func TestOnlyTheServerDropsFiles(t *testing.T) {
	content := strings.Repeat("x", 8192)
	for _, tt := range []struct {
		name    string
		content string
		broken  error
		count   int64
		fails   bool
	}{
		{"a file", content, nil, 1, false},
		{"a file that is gone", "", nil, 0, false},
		{"an object of the repository is gone", content, fs.ErrNotExist, 0, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, err := takes(t, fakeTree{tt.content}, tt.broken)
			if (err != nil) != tt.fails || f.count != tt.count || tt.fails && !errors.Is(err, tt.broken) {
				t.Errorf("%d files, %v", f.count, err)
			}
		})
	}
}
