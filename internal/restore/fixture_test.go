package restore

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

const mib = 1 << 20

// modified is the time of all files of a fixture.
var modified = time.Date(2026, 11, 20, 8, 30, 0, 0, time.UTC)

// A fixture is a repository made by hand.
type fixture struct {
	t testing.TB
	*repo.Repository
}

func newFixture(t testing.TB) *fixture {
	t.Helper()
	return newSealedFixture(t, repo.Keys{})
}

// newSealedFixture makes a repository that is sealed with keys.
func newSealedFixture(t testing.TB, keys repo.Keys) *fixture {
	t.Helper()
	r, err := repo.Open(durable.OS{}, t.TempDir(), "primary")
	if err != nil {
		t.Fatal(err)
	}
	r.UseKeys(keys)
	return &fixture{t, r}
}

// frameBytes is small, so that files of a fixture span several frames.
const frameBytes = 1000

// summary returns the description of a backup of timeline tli that lasts from
// segment first to the middle of segment last, and of nothing else.
func summary(label string, tli pg.Timeline, first, last int) repo.Summary {
	ended, _ := time.Parse("20060102150405", label)
	return repo.Summary{
		Server: "primary", Label: repo.Label(label), Type: repo.Full, PostgreSQL: 170000, SegmentSize: mib,
		Start: pg.LSN(first)*mib + 40, End: pg.LSN(last)*mib + mib/2, StartTLI: tli, EndTLI: tli,
		StartedAt: ended.Add(-time.Minute), StoppedAt: ended, EndedAt: ended,
		Tablespaces: []repo.Tablespace{{OID: 16385, Name: "fast disk", Location: "/srv/fast"}},
	}
}

// plain are the files of every fixture's backup by path; a trailing slash marks a directory.
func plain() map[string]string {
	return map[string]string{
		"PG_VERSION": "17\n", "backup_label": "START WAL LOCATION: ...\n", "base/": "", "base/5/": "", "base/5/1259": text(3500, "a"),
		"base/5/empty": "", "base/5/small": "xyz", "global/": "", "global/1262": text(999, "b"), "global/pg_control": text(512, "c"),
		"pg_wal/": "", "pg_wal/archive_status/": "", "pg_tblspc/": "", "pg_tblspc/16385": "-> /srv/fast",
		"pg_tblspc/16385/PG_17/": "", "pg_tblspc/16385/PG_17/5/": "", "pg_tblspc/16385/PG_17/5/2000": text(2100, "d"),
		"postgresql.conf": "port = 5432\n", "postgresql.auto.conf": "# auto\nport = '1'\nprimary_conninfo = 'host=x'\n",
		"standby.signal": "",
	}
}

func text(n int, seed string) string {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "%s%d,", seed, i)
	}
	return b.String()[:n]
}

// rows packs files and returns their rows and the pack table.
func (f *fixture) rows(label repo.Label, content map[string]string) ([]repo.File, []repo.PackRef) {
	f.t.Helper()
	ctx := context.Background()
	stage, err := f.Engine().Stage(ctx, repo.OwnerJob)
	f.must(err)
	defer func() { _ = stage.Abort() }()
	name := repo.PackName(label, 1)
	up, err := stage.Create(ctx, name)
	f.must(err)
	w, err := f.NewContainer(up, name, container.Pack, container.Zstd)
	f.must(err)
	printer, err := f.NewPrinter(ctx)
	f.must(err)
	enc, err := container.NewEncoder(container.Zstd, 1)
	f.must(err)
	var all bytes.Buffer
	var rows []repo.File
	for _, path := range slices.Sorted(maps.Keys(content)) {
		body := content[path]
		row := repo.File{Path: strings.TrimSuffix(path, "/"), Kind: repo.Regular, Mode: 0o600, ModTime: modified}
		link, isLink := strings.CutPrefix(body, "-> ")
		switch {
		case strings.HasSuffix(path, "/"):
			row.Kind = repo.Directory
		case isLink:
			row.Kind, row.Link = repo.Symlink, link
		case body != "":
			row.Size = int64(len(body))
			row.Extents = []repo.Extent{{Length: row.Size, Frame: all.Len() / frameBytes, Skip: int64(all.Len() % frameBytes)}}
			all.WriteString(body)
		}
		rows = append(rows, row)
	}
	for chunk := range slices.Chunk(all.Bytes(), frameBytes) {
		stored, frame, err := enc.Append(nil, chunk)
		f.must(err)
		frame.Print = printer.Print(chunk)
		_, err = w.WriteFrame(stored, frame)
		f.must(err)
	}
	f.must(w.Finish())
	f.must(up.Close())
	up, err = stage.Create(ctx, repo.PostgresManifestName(label))
	f.must(err)
	s, err := f.NewPostgresManifest(up, repo.Label(label))
	f.must(err)
	_, err = s.Write([]byte(`{"manifest":1}`))
	f.must(err)
	f.must(s.Finish())
	f.must(up.Close())
	f.must(stage.Commit(ctx))
	return rows, []repo.PackRef{{Name: name, Live: int64(all.Len())}}
}

// backup lists a backup of the given rows.
func (f *fixture) backup(s repo.Summary, rows []repo.File, packs []repo.PackRef) {
	f.t.Helper()
	ctx := context.Background()
	w, err := f.NewManifestWriter(ctx, s.Label)
	f.must(err)
	for _, row := range rows {
		s.Logical += max(row.Size, 0)
		f.must(w.Add(row))
	}
	f.must(w.Commit(ctx, s, packs))
}

// plainBackup lists a backup of the plain files.
func (f *fixture) plainBackup(s repo.Summary) {
	f.t.Helper()
	rows, packs := f.rows(s.Label, plain())
	f.backup(s, rows, packs)
}

// segment stores segments first to last of a timeline.
func (f *fixture) segments(tli pg.Timeline, first, last int) {
	f.t.Helper()
	for n := first; n <= last; n++ {
		_, err := f.StoreSegment(context.Background(), f.name(tli, n), mib, strings.NewReader(walText(tli, n)), container.Zstd, 1)
		f.must(err)
	}
}

func (f *fixture) name(tli pg.Timeline, n int) string { return pg.SegmentName(tli, pg.LSN(n)*mib, mib) }

// walText is the content of a segment, without zeros.
func walText(tli pg.Timeline, n int) string {
	line := fmt.Sprintf("timeline %d segment %d\n", tli, n)
	return strings.Repeat(line, mib/len(line)+1)[:mib]
}

// history stores the history of a timeline from pairs "ancestor LSN".
func (f *fixture) history(tli pg.Timeline, lines ...string) {
	f.t.Helper()
	text := strings.Join(lines, "\n")
	f.must(f.StoreHistory(context.Background(), tli, []byte(strings.ReplaceAll(text, " ", "\t")+"\treason\n")))
}

func (f *fixture) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// sleeper returns the number of a process that works in dir until the test ends.
func (f *fixture) sleeper(dir string) int {
	f.t.Helper()
	cmd := exec.Command("sleep", "600")
	cmd.Dir = dir
	f.must(cmd.Start())
	f.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd.Process.Pid
}

func ownerID(info os.FileInfo) int { return int(info.Sys().(*syscall.Stat_t).Uid) }
