package backup

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/pgrepl"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// Everything is small, so that each backup has several packs of several frames.
const (
	tinyBlock = 64
	tinyFrame = 256
	tinyPack  = 1500
)

// cluster is the content of a data directory by path.
type cluster map[string]string

// A world is a cluster, a repository whose power may fail, and what should be in it.
type world struct {
	t       *testing.T
	rand    *rand.Rand
	fs      *durable.Fault
	repo    *repo.Repository
	live    cluster
	backups map[repo.Label]cluster
	cut     int // operation at which the power fails; 0 = never
	log     []string
	seconds int

	compacted int // packs
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{t: t, rand: rand.New(rand.NewPCG(seed, 1)), live: cluster{}, backups: map[repo.Label]cluster{}}
	w.boot(t.TempDir())
	for range 6 {
		w.change()
	}
	return w
}

// boot opens the repository in dir, as it is after a start.
func (w *world) boot(dir string) {
	w.cut = 0
	var err error
	if w.fs, err = durable.NewFault(dir, func(op durable.Op) error {
		if op.N == w.cut {
			return durable.ErrPowerCut
		}
		return nil
	}); err != nil {
		w.t.Fatal(err)
	}
	if w.repo, err = repo.Open(w.fs, dir, "primary"); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) bytes(n int) string {
	b := make([]byte, n)
	switch w.rand.IntN(4) {
	case 0: // zeros
	case 1: // what another file may hold too
		for i := range b {
			b[i] = byte(i / tinyBlock)
		}
	default:
		for i := range b {
			b[i] = byte(w.rand.Uint32())
		}
	}
	return string(b)
}

func (w *world) pick() string {
	paths := slices.Sorted(maps.Keys(w.live))
	return paths[w.rand.IntN(len(paths))]
}

// change alters the cluster somewhere.
func (w *world) change() {
	if len(w.live) < 4 || w.rand.IntN(4) == 0 {
		top := []string{"base/5", "global", "pg_xact", "pg_tblspc/16385/PG_17/5"}[w.rand.IntN(4)]
		w.live[fmt.Sprintf("%s/%d", top, w.rand.IntN(1000))] = w.bytes(w.rand.IntN(20) * tinyBlock)
		return
	}
	path := w.pick()
	content := w.live[path]
	switch at := w.rand.IntN(len(content)/tinyBlock+1) * tinyBlock; w.rand.IntN(6) {
	case 0:
		delete(w.live, path)
	case 1:
		w.live[path] = content[:at]
	case 2:
		w.live[path] += w.bytes(w.rand.IntN(8) * tinyBlock)
	case 3: // the same content under another name
		w.live[path+"0"] = content
	case 4:
		w.live[path] = w.bytes(w.rand.IntN(5000)) // of any length
	default:
		if at < len(content) {
			w.live[path] = content[:at] + w.bytes(min(tinyBlock, len(content)-at)) + content[min(at+tinyBlock, len(content)):]
		}
	}
}

// archive is the tar of the cluster; on a base with the blocks of its relations.
func (w *world) archive(base cluster) []byte {
	var b bytes.Buffer
	out := tar.NewWriter(&b)
	for _, path := range w.order() {
		content := w.live[path]
		if old, ok := base[path]; ok && len(content)%tinyBlock == 0 && len(old)%tinyBlock == 0 && !strings.HasPrefix(path, "pg_xact/") {
			slash := strings.LastIndex(path, "/") + 1
			path, content = path[:slash]+incrementalPrefix+path[slash:], w.blocksSince(old, content)
		}
		if err := out.WriteHeader(&tar.Header{Name: path, Typeflag: tar.TypeReg, Mode: 0o600, Size: int64(len(content))}); err != nil {
			w.t.Fatal(err)
		}
		if _, err := out.Write([]byte(content)); err != nil {
			w.t.Fatal(err)
		}
	}
	return b.Bytes()
}

// order is that of a directory, which now and then is another.
func (w *world) order() []string {
	paths := slices.Sorted(maps.Keys(w.live))
	if w.rand.IntN(5) == 0 {
		w.rand.Shuffle(len(paths), func(i, j int) { paths[i], paths[j] = paths[j], paths[i] })
	}
	return paths
}

// blocksSince is the incremental file for content on a base that holds old. Some
// blocks are sent although they have not changed, and zeros behind the end of the
// base may not be sent.
func (w *world) blocksSince(old, content string) string {
	shared := min(len(old), len(content)) / tinyBlock
	shortest := w.rand.IntN(shared + 1) // it was once truncated
	if w.rand.IntN(2) == 0 {
		shortest = shared
	}
	var numbers []byte
	blocks, n := "", 0
	for i := range len(content) / tinyBlock {
		block := content[i*tinyBlock : (i+1)*tinyBlock]
		same := i < shortest && block == old[i*tinyBlock:(i+1)*tinyBlock]
		zero := i >= len(old)/tinyBlock && strings.Trim(block, "\x00") == ""
		if (same || zero) && w.rand.IntN(10) > 0 {
			continue
		}
		numbers = binary.LittleEndian.AppendUint32(numbers, uint32(i))
		blocks += block
		n++
	}
	head := binary.LittleEndian.AppendUint32(nil, incrementalMagic)
	head = binary.LittleEndian.AppendUint32(head, uint32(n))
	head = binary.LittleEndian.AppendUint32(head, uint32(len(content)/tinyBlock))
	head = append(head, numbers...)
	for n > 0 && len(head)%tinyBlock > 0 {
		head = append(head, 0)
	}
	return string(head) + blocks
}

// backup takes one, on a base if that is not empty.
func (w *world) backup(ctx context.Context, label, on repo.Label) error {
	if err := w.repo.Sweep(ctx); err != nil {
		return err
	}
	j := &job{Options: Options{Repo: w.repo, Base: on, Log: slog.New(slog.DiscardHandler)}}
	j.summary = repo.Summary{Server: "primary", Label: label, Type: repo.Full, System: "1", SegmentSize: 1 << 20, Cipher: "none", FrameBytes: tinyFrame}
	b, k, err := j.openBase(ctx)
	if err != nil {
		return err
	}
	if b != nil {
		defer b.close()
	}
	if err := w.repo.Begin(ctx, label); err != nil {
		return err
	}
	rows, err := w.repo.NewManifestWriter(ctx, label)
	if err != nil {
		return err
	}
	defer rows.Abort()
	pipe, err := newPipeline(ctx, w.repo, label, layout{codec: container.None, workers: 2, frame: tinyFrame, pack: tinyPack}, k, rows)
	if err != nil {
		return err
	}
	f := &files{pipe: pipe, seed: maphash.MakeSeed(), received: func(int64) {}}
	var base cluster
	if on != "" {
		base = w.backups[on]
		b.blockSize = tinyBlock
		if b.rows, err = b.manifest.Index(ctx); err != nil {
			pipe.abort(err)
			return err
		}
		f.base, j.summary.Type, j.summary.Base = b, repo.Incremental, on
	}
	if err := f.archive(pgrepl.BackupTablespace{}, bytes.NewReader(w.archive(base))); err != nil {
		pipe.abort(err)
		return err
	}
	packs, _, err := pipe.finish()
	if err != nil {
		return err
	}
	return rows.Commit(ctx, j.summary, packs)
}

// step does something.
func (w *world) step(ctx context.Context) error {
	labels := slices.Sorted(maps.Keys(w.backups))
	kind := w.rand.IntN(10)
	var label repo.Label
	if len(labels) > 0 {
		label = labels[w.rand.IntN(len(labels))]
	}
	switch {
	case kind == 9:
		w.log = append(w.log, "collect")
		return w.repo.Sweep(ctx)
	case kind >= 7 && label != "":
		packs := w.repo.PacksOf(ctx, label)
		w.log = append(w.log, "delete "+string(label))
		err := w.repo.Delete(ctx, label)
		w.settle(label, w.backups[label], err)
		if err != nil {
			return err
		}
		return w.compact(ctx, packs)
	case kind >= 4 && label != "":
		return w.take(ctx, label)
	default:
		return w.take(ctx, "")
	}
}

// compact writes some of the packs again, however little that pays.
func (w *world) compact(ctx context.Context, packs []string) error {
	o := repo.CompactOptions{Packs: packs, Share: w.rand.Float64() / 2, Budget: int64(w.rand.IntN(5 * tinyPack))}
	done, err := w.repo.Compact(ctx, o)
	w.log = append(w.log, fmt.Sprintf("compact %.2f %d: %+v, %v", o.Share, o.Budget, done, err))
	if err != nil && !errors.Is(err, durable.ErrPowerCut) {
		w.fail("%v", err)
	}
	w.compacted += done.Packs
	return err
}

func (w *world) take(ctx context.Context, on repo.Label) error {
	for range w.rand.IntN(6) {
		w.change()
	}
	w.seconds++
	label := repo.NewLabel(time.Date(2026, 11, 21, 12, 0, w.seconds, 0, time.UTC), "")
	w.log = append(w.log, fmt.Sprintf("backup %s on %q of %d files", label, on, len(w.live)))
	err := w.backup(ctx, label, on)
	w.settle(label, maps.Clone(w.live), err)
	return err
}

// settle updates the model: after an error whoever looks decides whether it was done.
func (w *world) settle(label repo.Label, content cluster, err error) {
	_, was := w.backups[label]
	switch {
	case err == nil && was:
		delete(w.backups, label)
	case err == nil:
		w.backups[label] = content
	default:
		if !errors.Is(err, durable.ErrPowerCut) {
			w.fail("%v", err)
		}
		w.boot(w.survivor())
		if w.listed()[label] {
			w.backups[label] = content
		} else {
			delete(w.backups, label)
		}
	}
}

func (w *world) survivor() string {
	dir := w.t.TempDir()
	if err := w.fs.Image(dir); err != nil {
		w.fail("%v", err)
	}
	return dir
}

func (w *world) listed() map[repo.Label]bool {
	list, err := w.repo.Backups(context.Background())
	if err != nil {
		w.fail("%v", err)
	}
	labels := map[repo.Label]bool{}
	for _, b := range list {
		if b.Err != nil {
			w.fail("%v", b.Err)
		}
		labels[b.Label] = true
	}
	return labels
}

func (w *world) fail(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("%s\nafter:\n  %s", fmt.Sprintf(format, args...), strings.Join(w.log, "\n  "))
}

// check compares what is listed with the model, byte for byte; with exact also that no
// pack is there that nothing needs.
func (w *world) check(exact bool) {
	w.t.Helper()
	listed := w.listed()
	if len(listed) != len(w.backups) {
		w.fail("listed %v, want %v", listed, slices.Sorted(maps.Keys(w.backups)))
	}
	used := map[string]bool{}
	for label, want := range w.backups {
		if !listed[label] {
			w.fail("backup %s is not listed", label)
		}
		w.checkBackup(label, want, used)
	}
	unfinished, err := w.repo.Unfinished(context.Background())
	if err != nil {
		w.fail("%v", err)
	}
	packs, err := w.repo.Engine().List(context.Background(), "pack")
	if err != nil {
		w.fail("%v", err)
	}
	seen := map[string]bool{}
	for _, p := range packs {
		name := repo.PackOf(p.Name)
		waits := slices.ContainsFunc(unfinished, func(l repo.Label) bool { return strings.HasPrefix(name, "pack/"+string(l)+"/") })
		if exact && (!used[name] && !waits || seen[name]) {
			w.fail("%s is dead and was not removed", p.Name)
		}
		seen[name] = true
	}
}

func (w *world) checkBackup(label repo.Label, want cluster, used map[string]bool) {
	w.t.Helper()
	ctx := context.Background()
	m, err := w.repo.OpenManifest(ctx, label)
	if err != nil {
		w.fail("%v", err)
	}
	defer m.Close()
	for _, p := range m.Packs {
		used[p.Name] = true
	}
	set := w.repo.PackSet(m.Packs, 3)
	defer set.Close()
	var s container.Scratch
	defer s.Close()
	got := cluster{}
	for f, err := range m.Files() {
		if err != nil {
			w.fail("%v", err)
		}
		b := make([]byte, f.Size)
		if err := set.ReadAt(ctx, f.Extents, b, 0, &s); err != nil {
			w.fail("backup %s: %s: %v", label, f.Path, err)
		}
		got[f.Path] = string(b)
		if len(b) > 100 { // a part is the same
			part := b[33:99]
			again := make([]byte, len(part))
			if err := set.ReadAt(ctx, f.Extents, again, 33, &s); err != nil || !bytes.Equal(again, part) {
				w.fail("backup %s: %s: a part differs, %v", label, f.Path, err)
			}
		}
	}
	for path := range want {
		if got[path] != want[path] {
			w.fail("backup %s: %s differs: %d bytes, want %d", label, path, len(got[path]), len(want[path]))
		}
	}
	if len(got) != len(want) {
		w.fail("backup %s has %d files, want %d", label, len(got), len(want))
	}
}

// Whatever is taken, deleted, collected and interrupted in whatever order: what is
// listed restores byte for byte, and after a collection nothing is left that no
// backup needs.
func TestBackupsStandAloneWhateverHappens(t *testing.T) {
	t.Parallel()
	seeds := uint64(4)
	if os.Getenv("PGMONETA_TEST_LONG") != "" {
		seeds = 200
	}
	var compacted atomic.Int64
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newWorld(t, seed)
			ctx := context.Background()
			for range 25 {
				if w.rand.IntN(3) == 0 {
					w.cut = w.fs.Ops() + 1 + w.rand.IntN(60)
				}
				err := w.step(ctx)
				if w.cut != 0 && w.fs.Ops() >= w.cut {
					w.boot(w.survivor()) // a collection was interrupted, or something that does not matter
				}
				w.cut = 0
				w.check(err == nil && strings.HasPrefix(w.log[len(w.log)-1], "collect"))
			}
			if err := w.repo.Sweep(ctx); err != nil {
				w.fail("%v", err)
			}
			if err := errors.Join(w.repo.ForgetUnfinished(ctx, time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)), w.repo.Sweep(ctx)); err != nil {
				w.fail("%v", err)
			}
			w.check(true)
			report, err := w.repo.Check(ctx, repo.CheckOptions{Full: true})
			if err != nil {
				w.fail("%v", err)
			}
			for _, f := range report.Findings {
				if !strings.HasSuffix(f.Object, "/backup_manifest") { // nobody wrote one
					w.fail("check: %+v", f)
				}
			}
			compacted.Add(int64(w.compacted))
		})
	}
	if compacted.Load() == 0 {
		t.Error("no pack was ever compacted")
	}
}
