package datadir

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/pgrepl"
	"github.com/pgmoneta/pgmoneta-go/internal/vault"
	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

func params(s *pgtest.Server) pgrepl.Params {
	return pgrepl.Params{Server: "primary", Host: s.Host, Port: s.Port, User: pgtest.ReplUser, Password: vault.NewSecret(pgtest.ReplPassword)}
}

// sent lists what BASE_BACKUP sends, as "path kind mode link".
func sent(t *testing.T, s *pgtest.Server) []string {
	t.Helper()
	conn, err := pgrepl.Connect(t.Context(), params(s))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	bb, err := conn.BaseBackup(t.Context(), pgrepl.BaseBackupOptions{Label: "list"})
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for {
		ts, err := bb.NextArchive()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		prefix := ""
		if ts.OID != 0 {
			prefix = fmt.Sprintf("pg_tblspc/%d", ts.OID)
		}
		tr := tar.NewReader(bb)
		for {
			h, err := tr.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			name := path.Join(prefix, path.Clean(h.Name))
			if name == prefix || name == "." || name == "backup_label" {
				continue
			}
			kind := map[byte]Kind{tar.TypeReg: Regular, tar.TypeDir: Directory, tar.TypeSymlink: Symlink}[h.Typeflag]
			list = append(list, describe(File{Path: name, Kind: kind, Mode: uint32(h.Mode), Link: h.Linkname}))
		}
	}
	if _, _, err := bb.Finish(); err != nil {
		t.Fatal(err)
	}
	slices.Sort(list)
	return list
}

func describe(f File) string {
	if f.Kind == Symlink {
		return fmt.Sprintf("%s -> %s", f.Path, f.Link)
	}
	return fmt.Sprintf("%s kind %d mode %o", f.Path, f.Kind, f.Mode&0o777)
}

// Walk yields exactly what the server's own base backup sends, on every version.
func TestWalkYieldsWhatBaseBackupSends(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, major int) {
		s := pgtest.Start(t, pgtest.Options{Major: major})
		s.Tablespace(t, "elsewhere")
		s.Exec(t, "CREATE TABLE there (i int) TABLESPACE elsewhere")
		s.Exec(t, "CREATE UNLOGGED TABLE fleeting (i int primary key)")
		s.Exec(t, "INSERT INTO fleeting SELECT generate_series(1, 1000)")
		s.Exec(t, "CREATE UNLOGGED TABLE fleeting_there (i int) TABLESPACE elsewhere")
		conn := s.Conn(t)
		if _, err := conn.Exec(t.Context(), "CREATE TEMPORARY TABLE mine AS SELECT generate_series(1, 1000) i"); err != nil {
			t.Fatal(err)
		}
		s.Exec(t, "CHECKPOINT")
		want := sent(t, s)
		local, err := OpenLocal(s.DataDir)
		if err != nil {
			t.Fatal(err)
		}
		defer local.Close()
		remote, err := OpenSQL(t.Context(), superuser(s), 2)
		if err != nil {
			t.Fatal(err)
		}
		defer remote.Close()
		for name, tree := range map[string]Tree{"local": local, "sql": remote} {
			t.Run(name, func(t *testing.T) { compareWithSent(t, s, tree, want) })
		}
	})
}

func superuser(s *pgtest.Server) pgrepl.Params {
	return pgrepl.Params{Server: "primary", Host: s.SocketDir, Port: s.Port, User: "postgres"}
}

func compareWithSent(t *testing.T, s *pgtest.Server, tree Tree, want []string) {
	var got []string
	last := ""
	version, err := pg.ParseVersion(s.QueryString(t, "SHOW server_version"))
	if err != nil {
		t.Fatal(err)
	}
	err = Walk(t.Context(), tree, version, func(f File) error {
		if f.Kind == Regular {
			if err := readThrough(t.Context(), tree, f); err != nil {
				return err
			}
		}
		got, last = append(got, describe(f)), f.Path
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if last != ControlFile {
		t.Errorf("the last is %s", last)
	}
	slices.Sort(got)
	for _, line := range got {
		if !slices.Contains(want, line) {
			t.Errorf("too much: %s", line)
		}
	}
	for _, line := range want {
		if !slices.Contains(got, line) {
			t.Errorf("missing: %s", line)
		}
	}
}

func TestPagesOfARealServerPassAndDamageIsFound(t *testing.T) {
	s := pgtest.Start(t, pgtest.Options{})
	s.Exec(t, "CREATE TABLE t AS SELECT i, repeat(md5(i::text), 4) filler FROM generate_series(1, 20000) i")
	s.Exec(t, "CHECKPOINT")
	name := s.QueryString(t, "SELECT pg_relation_filepath('t')")
	s.Stop(t, pgtest.Fast)
	tree, err := OpenLocal(s.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	read := func() *Pages {
		pages := &Pages{BlockSize: 8192, Start: ^pg.LSN(0), SegmentOf: 131072}
		err := Walk(t.Context(), tree, pg.Version(170000), func(f File) error {
			if f.Kind != Regular {
				return nil
			}
			r, err := Open(t.Context(), tree, f)
			if err != nil {
				return err
			}
			defer r.Close()
			b, err := io.ReadAll(r)
			if err != nil {
				return err
			}
			_, err = pages.Check(t.Context(), tree, f.Path, 0, b)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return pages
	}
	if p := read(); p.Bad.Count != 0 || p.Checked < 500 {
		t.Fatalf("sound directory: %d pages checked, bad: %v", p.Checked, p.Bad.Found)
	}
	f, err := os.OpenFile(filepath.Join(s.DataDir, name), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("!"), 7*8192+4000); err != nil {
		t.Fatal(err)
	}
	if p := read(); p.Bad.Count != 1 || p.Bad.Found[0] != (BadPage{Path: name, Block: 7}) {
		t.Fatalf("damaged directory: %d bad: %v", p.Bad.Count, p.Bad.Found)
	}
}

func readThrough(ctx context.Context, tree Tree, f File) error {
	r, err := Open(ctx, tree, f)
	if err != nil {
		return err
	}
	defer r.Close()
	n, err := io.Copy(struct{ io.Writer }{io.Discard}, r)
	if err == nil && n != f.Size {
		err = fmt.Errorf("%s: read %d of %d bytes", f.Path, n, f.Size)
	}
	return err
}

func TestBothTreesReadTheSame(t *testing.T) {
	s := pgtest.Start(t, pgtest.Options{})
	s.Exec(t, "CREATE TABLE t AS SELECT i, repeat(md5(i::text), 10) filler FROM generate_series(1, 20000) i")
	s.Exec(t, "CHECKPOINT")
	name := s.QueryString(t, "SELECT pg_relation_filepath('t')")
	want, err := os.ReadFile(filepath.Join(s.DataDir, name))
	if err != nil {
		t.Fatal(err)
	}
	tree, err := OpenSQL(t.Context(), superuser(s), 3)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	r, err := Open(t.Context(), tree, File{Path: name, Size: int64(len(want)) + 8192})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got, err := io.ReadAll(r)
	if err != nil || string(got) != string(want)+strings.Repeat("\x00", 8192) {
		t.Errorf("%d bytes differ from %d: %v", len(got), len(want), err)
	}
	gone, err := Open(t.Context(), tree, File{Path: "base/1/99999999", Size: 8192})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := gone.Read(make([]byte, 10)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is gone: %v", err)
	}
}

func TestReaderFillsWhatAFileHasLost(t *testing.T) {
	dir := directory(t)
	name := filepath.Join(dir, "base/1/100")
	if err := os.WriteFile(name, []byte(strings.Repeat("x", 10000)), 0o600); err != nil {
		t.Fatal(err)
	}
	tree, err := OpenLocal(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	list, err := tree.List(t.Context(), "base/1")
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	if err := os.Truncate(name, 5000); err != nil {
		t.Fatal(err)
	}
	r, err := Open(t.Context(), tree, list[0])
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if want := strings.Repeat("x", 5000) + strings.Repeat("\x00", 5000); err != nil || string(b) != want {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

func TestNamesDoNotLeadOut(t *testing.T) {
	dir := directory(t)
	outside := filepath.Join(t.TempDir(), "secret")
	if err := errors.Join(os.WriteFile(outside, []byte("x"), 0o600), os.Symlink(outside, filepath.Join(dir, "base/1/link"))); err != nil {
		t.Fatal(err)
	}
	tree, err := OpenLocal(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	for _, name := range []string{"../x", "base/1/link", "/etc/passwd"} {
		if _, err := tree.Open(t.Context(), name); err == nil {
			t.Errorf("%s was opened", name)
		}
	}
}

// directory makes the skeleton of a data directory.
func directory(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"base/1", "global", "pg_tblspc", "pg_wal"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestNoDataDirectory(t *testing.T) {
	tree, err := OpenLocal(directory(t))
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	if err := Walk(t.Context(), tree, pg.Version(170000), func(File) error { return nil }); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("walk: %v", err)
	}
	if _, err := ReadControl(t.Context(), tree); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("control: %v", err)
	}
	if _, err := OpenLocal(t.TempDir()); err == nil {
		t.Error("an empty directory was opened")
	}
}

func TestControl(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, major int) {
		s := pgtest.Start(t, pgtest.Options{Major: major})
		tree, err := OpenLocal(s.DataDir)
		if err != nil {
			t.Fatal(err)
		}
		defer tree.Close()
		c, err := ReadControl(t.Context(), tree)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.QueryString(t, "SELECT system_identifier FROM pg_control_system()"); got != fmt.Sprint(c.System) {
			t.Errorf("system is %d, the server says %s", c.System, got)
		}
		if got := s.QueryString(t, "SELECT checkpoint_lsn FROM pg_control_checkpoint()"); got != c.Checkpoint.String() {
			t.Errorf("checkpoint is %s, the server says %s", c.Checkpoint, got)
		}
	})
}

func TestTornControlIsGivenUp(t *testing.T) {
	dir := directory(t)
	if err := os.WriteFile(filepath.Join(dir, ControlFile), make([]byte, 8192), 0o600); err != nil {
		t.Fatal(err)
	}
	tree, err := OpenLocal(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("enough"))
	if _, err := ReadControl(ctx, tree); err == nil || err.Error() != "enough" {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := readControl(t.Context(), tree); !errors.Is(err, ErrTornControl) {
		t.Errorf("torn: %v", err)
	}
}

func FuzzControl(f *testing.F) {
	f.Add(make([]byte, 8192))
	f.Add([]byte("x"))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = ParseControl(b) })
}

func FuzzRelation(f *testing.F) {
	for _, s := range []string{"16384", "16384.1", "16384_fsm", "t3_16384", "16384_init", "PG_VERSION"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if number, _, ok := relation(name); ok && !strings.HasPrefix(name, number) {
			t.Errorf("%q is of relation %q", name, number)
		}
		_ = temporaryRelation(name)
	})
}

// FuzzMix compares what the processor's own instructions give with the portable form.
func FuzzMix(f *testing.F) {
	f.Add(bytes.Repeat([]byte{1, 2, 3, 250, 0, 255}, 1400))
	f.Add([]byte("less than a row"))
	f.Add(make([]byte, 2*rowBytes+1))
	f.Fuzz(func(t *testing.T, rows []byte) {
		got, want := offsets, offsets
		mix(&got, rows)
		mixPortable(&want, rows)
		if got != want {
			t.Errorf("%d bytes: %x, want %x", len(rows), got, want)
		}
	})
}

func BenchmarkChecksum(b *testing.B) {
	page := make([]byte, 8192)
	b.SetBytes(8192)
	for b.Loop() {
		checksum(page, 1)
	}
}
