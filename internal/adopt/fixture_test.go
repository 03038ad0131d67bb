package adopt

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/foreign"
	"github.com/pgmoneta/pgmoneta-go/internal/manifest"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/internal/restore"
	"github.com/pgmoneta/pgmoneta-go/internal/walpage"
)

const (
	mib    = 1 << 20
	block  = 8 << 10
	system = 7710649025785056541
)

// labels are those of a full backup and of incremental ones, each based on the one before.
var labels = [...]repo.Label{"20260101000000", "20260102000000", "20260103000000", "20260104000000"}

// chain writes the first n backups of the chain of PostgreSQL 17 below base, as C pgmoneta does.
func chain(t *testing.T, base string, n int) {
	t.Helper()
	chainOf(t, base, n, 17)
}

func chainOf(t *testing.T, base string, n, major int) {
	t.Helper()
	relation := make([]byte, 5*block)
	for i := range relation {
		relation[i] = byte(i>>8*7 + i)
	}
	for i, l := range labels[:n] {
		files := map[string][]byte{
			"PG_VERSION": []byte("17\n"), "global/pg_control": control(), "base/1/small": []byte("small"), "base/1/empty": nil,
			"pg_xact/0000": shared(), "base/1/own": fmt.Appendf(nil, "of %s", l), "backup_label": backupLabel(i), "postgresql.auto.conf": []byte("# none\n"),
		}
		changed := bytes.Repeat([]byte{byte('A' + i)}, block)
		if i == 0 {
			files["base/1/100"] = relation
		} else {
			files["base/1/INCREMENTAL.100"] = incremental(5, uint32(i), changed)
		}
		dir := filepath.Join(base, "primary", "backup", string(l))
		for name, content := range files {
			write(t, filepath.Join(dir, "data", name), content)
		}
		write(t, filepath.Join(dir, "data", "backup_manifest"), postgresManifest(t, i, files, major))
		write(t, filepath.Join(dir, "data", "pg_wal", segmentName(i)), segment(i))
		write(t, filepath.Join(dir, "backup.info"), bytes.Replace(info(i), []byte("VERSION=17"), fmt.Appendf(nil, "VERSION=%d", major), 1))
		write(t, filepath.Join(dir, "backup.sha512"), nil)
	}
}

func write(t *testing.T, path string, content []byte) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o700))
	must(t, os.WriteFile(path, content, 0o600))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// positions of backup i: it lies in a segment of its own.
func start(i int) pg.LSN { return pg.LSN(i+1)*mib + 0x28 }
func end(i int) pg.LSN   { return pg.LSN(i+1)*mib + 0x100 }

func segmentName(i int) string { return pg.SegmentName(1, start(i), mib) }

func segment(i int) []byte {
	h := walpage.Header{Magic: 0xD116, Timeline: 1, Address: pg.LSN(i+1) * mib, Info: walpage.LongHeader, System: system, SegmentSize: mib, BlockSize: block}
	return append(h.Append(nil), make([]byte, mib-walpage.LongSize)...)
}

func control() []byte {
	b := make([]byte, 8192)
	binary.NativeEndian.PutUint64(b, system)
	binary.NativeEndian.PutUint32(b[288:], crc32.Checksum(b[:288], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

func backupLabel(i int) []byte {
	text := fmt.Sprintf("START WAL LOCATION: %s (file %s)\nCHECKPOINT LOCATION: %s\nBACKUP METHOD: streamed\nBACKUP FROM: primary\nSTART TIME: 2026-01-0%d 00:00:00 UTC\nLABEL: x\nSTART TIMELINE: 1\n",
		start(i), segmentName(i), start(i)+0x38, i+1)
	if i > 0 {
		text += fmt.Sprintf("INCREMENTAL FROM LSN: %s\nINCREMENTAL FROM TLI: 1\n", start(i-1))
	}
	return []byte(text)
}

// shared is a file that is the same in all backups, and not of pages.
func shared() []byte {
	b := make([]byte, 5*block)
	_, _ = rand.NewChaCha8([32]byte{}).Read(b) // never fails
	return b
}

// incremental is a file of which one block has changed.
func incremental(blocks, number uint32, content []byte) []byte {
	b := make([]byte, block, 2*block)
	for i, n := range []uint32{0xd3ae1f0d, 1, blocks, number} {
		binary.LittleEndian.PutUint32(b[4*i:], n)
	}
	return append(b, content...)
}

func postgresManifest(t *testing.T, i int, files map[string][]byte, major int) []byte {
	var b bytes.Buffer
	named := uint64(system)
	if major < 17 {
		named = 0 // older ones do not name it
	}
	w := manifest.NewWriter(&b, named)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		must(t, w.Add(manifest.File{Path: name, Size: int64(len(files[name])), Modified: "2026-01-01 00:00:00 GMT", Algorithm: "SHA512", Checksum: fmt.Sprintf("%x", sha512.Sum512(files[name]))}))
	}
	must(t, w.Finish([]manifest.WALRange{{Timeline: 1, Start: start(i), End: end(i)}}))
	return b.Bytes()
}

func info(i int) []byte {
	kind, parent := 0, ""
	if i > 0 {
		kind, parent = 1, string(labels[i-1])
	}
	return fmt.Appendf(nil, "PGMONETA_VERSION=0.22.0\nSTATUS=1\nLABEL=%s\nWAL=%s\nBACKUP=1000000\nRESTORE=1000000\nMAJOR_VERSION=17\nMINOR_VERSION=3\nKEEP=%d\nTABLESPACES=0\nCOMPRESSION=0\nENCRYPTION=0\n"+
		"START_WALPOS=%s\nEND_WALPOS=%s\nCHKPT_WALPOS=%s\nSTART_TIMELINE=1\nEND_TIMELINE=1\nTYPE=%d\nPARENT=%s\nCOMMENTS=why|because,who|me\nEXTRA=\n",
		labels[i], segmentName(i), i%2, start(i), end(i), start(i)+0x38, kind, parent)
}

// open opens the repository of base.
func open(t *testing.T, fsys durable.FS, base string) *repo.Repository {
	t.Helper()
	r, err := repo.Open(fsys, base, "primary")
	must(t, err)
	f, err := foreign.Open(fsys, r, nil)
	must(t, err)
	t.Cleanup(func() { _ = f.Close() })
	r.UseForeign(f)
	return r
}

func options(t *testing.T, r *repo.Repository) Options {
	return Options{Repo: r, Codec: container.None, Workers: 1, Progress: func(string, int64, int64) {},
		Now: func() time.Time { return time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC) }, Log: slog.New(slog.DiscardHandler)}
}

// listed returns the labels that are listed, all of them valid and each once.
func listed(t *testing.T, r *repo.Repository) (list []repo.Label) {
	t.Helper()
	backups, err := r.Backups(t.Context())
	must(t, err)
	for _, b := range backups {
		if b.Err != nil || slices.Contains(list, b.Label) {
			t.Errorf("backup %s: listed before %v, %v", b.Label, slices.Contains(list, b.Label), b.Err)
		}
		list = append(list, b.Label)
	}
	return list
}

// restored restores a backup and returns its files, but for PostgreSQL's manifest, which names times and checksums of
// another kind.
func restored(t *testing.T, r *repo.Repository, l repo.Label) map[string]string {
	t.Helper()
	p, err := restore.MakePlan(t.Context(), r, restore.Options{Backup: string(l), Tar: true})
	if err != nil {
		t.Errorf("restore of %s: %v", l, err)
		return nil
	}
	var out bytes.Buffer
	if err := restore.WriteTar(t.Context(), p, &out, container.None, 0, restore.RunOptions{Log: slog.New(slog.DiscardHandler)}); err != nil {
		t.Errorf("restore of %s: %v", l, err)
		return nil
	}
	files := map[string]string{}
	for in := tar.NewReader(&out); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		must(t, err)
		content, err := io.ReadAll(in)
		if must(t, err); h.Typeflag == tar.TypeReg && !strings.HasSuffix(h.Name, "backup_manifest") {
			files[h.Name] = string(content)
		}
	}
}

// originals restores all backups as C pgmoneta left them.
func originals(t *testing.T, n int) map[repo.Label]map[string]string {
	t.Helper()
	base := t.TempDir()
	chain(t, base, n)
	r := open(t, durable.OS{}, base)
	all := map[repo.Label]map[string]string{}
	for _, l := range labels[:n] {
		if all[l] = restored(t, r, l); len(all[l]) != 11 { // with the WAL and the mark that it is archived
			t.Errorf("files of %s: %v", l, slices.Sorted(maps.Keys(all[l])))
		}
	}
	return all
}

// same reports which of the listed backups does not restore to what it was.
func same(t *testing.T, r *repo.Repository, want map[repo.Label]map[string]string) {
	t.Helper()
	for _, l := range listed(t, r) {
		if got := restored(t, r, l); !maps.Equal(got, want[l]) {
			t.Errorf("backup %s: files %v, want %v", l, slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want[l])))
		}
	}
}

// remove is what a deletion does.
func remove(ctx context.Context, o Options, gone ...repo.Label) error {
	if _, err := Dependents(ctx, o, gone...); err != nil {
		return err
	}
	return o.Repo.Foreign().Delete(ctx, gone...)
}
