package backup

import (
	"archive/tar"
	"bytes"
	"context"
	"hash/maphash"
	"io"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/pgrepl"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// taken runs an archive through the pipeline into a backup and returns its rows.
func taken(t testing.TB, dir string, archive []byte) ([]repo.File, *repo.Repository, error) {
	t.Helper()
	ctx := context.Background()
	r, err := repo.Open(durable.OS{}, dir, "primary")
	if err != nil {
		t.Fatal(err)
	}
	const label = repo.Label("20261121120000")
	rows, err := r.NewManifestWriter(ctx, label)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Abort()
	pipe, err := newPipeline(ctx, r, label, layout{codec: container.None, workers: 2, frame: smallFrame, pack: repo.PackTarget}, newKnown(), rows)
	if err != nil {
		t.Fatal(err)
	}
	f := &files{pipe: pipe, seed: maphash.MakeSeed(), received: func(int64) {}}
	if err := f.archive(pgrepl.BackupTablespace{OID: 16385}, bytes.NewReader(archive)); err != nil {
		pipe.abort(err)
		return nil, nil, err
	}
	packs, _, err := pipe.finish()
	if err != nil {
		return nil, nil, err
	}
	if err := rows.Commit(ctx, repo.Summary{Server: "primary", Label: label, SegmentSize: 16 << 20}, packs); err != nil {
		t.Fatal(err)
	}
	m, err := r.OpenManifest(ctx, label)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	var list []repo.File
	for file, err := range m.Files() {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, file)
	}
	return list, r, nil
}

func archiveOf(t testing.TB, members ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	content := rand.NewChaCha8([32]byte{1})
	for _, h := range members {
		h.Mode = 0o600
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(w, content, h.Size); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestFilesAreCutIntoFrames(t *testing.T) {
	sizes := map[string]int64{"empty": 0, "small": 10, "other": 8192, "large": 3*smallFrame + 100, "after": 5, "exact": smallFrame}
	var members []tar.Header
	for _, name := range []string{"empty", "small", "other", "large", "after", "exact"} {
		members = append(members, tar.Header{Name: name, Typeflag: tar.TypeReg, Size: sizes[name]})
	}
	list, _, err := taken(t, t.TempDir(), archiveOf(t, members...))
	if err != nil || len(list) != len(members) {
		t.Fatalf("%d rows, %v", len(list), err)
	}
	for i, f := range list {
		if f.Path != "pg_tblspc/16385/"+members[i].Name || f.Size != members[i].Size {
			t.Errorf("row %d is %+v", i, f)
		}
		covered := int64(0)
		for _, x := range f.Extents {
			covered += x.Length
		}
		if covered != f.Size || len(f.Extents) > 1 {
			t.Errorf("%s: %d of %d bytes in %d extents, want one run", f.Path, covered, f.Size, len(f.Extents))
		}
		if f.Size >= smallFrame && f.Extents[0].Skip != 0 {
			t.Errorf("%s does not begin a frame: %+v", f.Path, f.Extents[0])
		}
	}
}

func TestHostileMembersAreRefused(t *testing.T) {
	for name, h := range map[string]tar.Header{
		"parent":   {Name: "../../etc/passwd", Typeflag: tar.TypeReg},
		"far up":   {Name: "a/../../../x", Typeflag: tar.TypeReg},
		"device":   {Name: "dev", Typeflag: tar.TypeChar},
		"hardlink": {Name: "link", Linkname: "PG_VERSION", Typeflag: tar.TypeLink},
		"fifo":     {Name: "fifo", Typeflag: tar.TypeFifo},
	} {
		if list, _, err := taken(t, t.TempDir(), archiveOf(t, h)); err == nil {
			t.Errorf("%s was accepted: %+v", name, list)
		}
	}
}

func FuzzArchiveRows(f *testing.F) {
	f.Add(archiveOf(f, tar.Header{Name: "PG_VERSION", Typeflag: tar.TypeReg, Size: 3}, tar.Header{Name: "base/", Typeflag: tar.TypeDir}))
	f.Add(archiveOf(f, tar.Header{Name: "./pg_tblspc/1", Linkname: "/srv", Typeflag: tar.TypeSymlink})[:512])
	f.Fuzz(func(t *testing.T, archive []byte) {
		tr := tar.NewReader(bytes.NewReader(archive))
		for {
			h, err := tr.Next()
			if err != nil {
				return
			}
			r, err := row("pg_tblspc/16385", h)
			if err == nil && r.Path != "" && (!strings.HasPrefix(r.Path, "pg_tblspc/16385/") || !filepath.IsLocal(r.Path)) {
				t.Errorf("%q became %q", h.Name, r.Path)
			}
		}
	})
}
