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

// A coding is how a world stores.
type coding struct {
	codec container.Codec
	keys  repo.Keys
}

// A state is what should be true of a backup. The zero state is that of one that is gone.
type state struct {
	content cluster
	listed  bool
	trashed bool
	keep    bool
}

func (s state) gone() bool { return !s.listed && !s.trashed }

// same says whether both differ in nothing but content.
func (s state) same(o state) bool {
	return s.listed == o.listed && s.trashed == o.trashed && (s.gone() || s.keep == o.keep)
}

func (s state) String() string {
	return fmt.Sprintf("listed %t, in the trash %t, to be kept %t", s.listed, s.trashed, s.keep)
}

// A world is a cluster, a repository whose power may fail, and what should be in it.
type world struct {
	t       *testing.T
	rand    *rand.Rand
	coding  coding
	fs      *durable.Fault
	repo    *repo.Repository
	live    cluster
	backups map[repo.Label]state // those that are not gone
	cut     int                  // operation at which the power fails; 0 = never
	log     []string
	seconds int
	did     map[string]int // how often what came to its end
}

func newWorld(t *testing.T, seed uint64, c coding) *world {
	w := &world{t: t, rand: rand.New(rand.NewPCG(seed, 1)), coding: c, live: cluster{}, backups: map[repo.Label]state{}, did: map[string]int{}}
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
	w.repo.UseKeys(w.coding.keys)
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
	if err := w.repo.Bind(ctx, repo.OwnerJob, "1"); err != nil {
		return err
	}
	j := &job{Options: Options{Repo: w.repo, Base: on, Log: slog.New(slog.DiscardHandler)}}
	j.summary = repo.Summary{Server: "primary", Label: label, Type: repo.Full, System: "1", SegmentSize: 1 << 20, Codec: w.coding.codec.String(), Cipher: w.repo.Cipher().String(), FrameBytes: tinyFrame}
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
	pipe, err := newPipeline(ctx, w.repo, label, layout{codec: w.coding.codec, workers: 2, frame: tinyFrame, pack: tinyPack}, k, rows)
	if err != nil {
		return err
	}
	f := &files{pipe: pipe, seed: maphash.MakeSeed(), received: func(int64) {}}
	var base cluster
	if on != "" {
		base = w.backups[on].content
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
	label := w.oneOf(func(s state) bool { return s.listed })
	deleted := w.oneOf(func(s state) bool { return s.trashed })
	switch kind := w.rand.IntN(16); {
	case kind >= 13 && deleted != "":
		return w.outOfTheTrash(ctx, deleted)
	case kind >= 12 && label != "":
		return w.intoTheTrash(ctx, label)
	case kind >= 10 && label != "":
		return w.keep(ctx, label)
	case kind == 9:
		w.log = append(w.log, "collect")
		return w.repo.Sweep(ctx)
	case kind >= 7 && label != "":
		return w.delete(ctx, label)
	case kind >= 4 && label != "":
		return w.take(ctx, label)
	default:
		return w.take(ctx, "")
	}
}

// oneOf returns one of the backups that is so, or none.
func (w *world) oneOf(is func(state) bool) repo.Label {
	var labels []repo.Label
	for _, l := range slices.Sorted(maps.Keys(w.backups)) {
		if is(w.backups[l]) {
			labels = append(labels, l)
		}
	}
	if len(labels) == 0 {
		return ""
	}
	return labels[w.rand.IntN(len(labels))]
}

// delete deletes a backup, if it is not to be kept or by force.
func (w *world) delete(ctx context.Context, label repo.Label) error {
	packs := w.repo.PacksOf(ctx, label)
	if w.rand.IntN(2) == 0 {
		if err := w.settle(w.byForce("delete", label), label, state{}, w.repo.Delete(ctx, label)); err != nil {
			return err
		}
		return w.compact(ctx, packs)
	}
	_, err := w.repo.Expire(ctx, label)
	if w.refused("delete", label, err) {
		return nil
	}
	if err := w.settle("delete", label, w.unlessKept(label, state{}), err); err != nil {
		return err
	}
	return w.compact(ctx, packs)
}

func (w *world) intoTheTrash(ctx context.Context, label repo.Label) error {
	after := w.backups[label]
	after.listed, after.trashed = false, true
	if w.rand.IntN(2) == 0 {
		_, err := w.repo.Trash(ctx, time.Unix(0, 0), true, label)
		return w.settle(w.byForce("trash", label), label, after, err)
	}
	_, err := w.repo.Trash(ctx, time.Unix(0, 0), false, label)
	if w.refused("trash", label, err) {
		return nil
	}
	return w.settle("trash", label, w.unlessKept(label, after), err)
}

// outOfTheTrash brings a backup back or deletes it for good.
func (w *world) outOfTheTrash(ctx context.Context, label repo.Label) error {
	if w.rand.IntN(2) == 0 {
		packs := w.repo.PacksOf(ctx, label)
		_, err := w.repo.Purge(ctx, label)
		if err := w.settle("purge", label, state{}, err); err != nil {
			return err
		}
		return w.compact(ctx, packs)
	}
	_, err := w.repo.Undelete(ctx, string(label))
	after := w.backups[label]
	after.listed, after.trashed = true, false
	return w.settle("undelete", label, after, err)
}

// keep wants a backup to be kept, or not any more.
func (w *world) keep(ctx context.Context, label repo.Label) error {
	after := w.backups[label]
	after.keep = !after.keep
	_, err := w.repo.ChangeNote(ctx, label, time.Unix(0, 0), func(n *repo.Note) error {
		n.Keep = after.keep
		return nil
	})
	what := "unkeep"
	if after.keep {
		what = "keep"
	}
	return w.settle(what, label, after, err)
}

func (w *world) byForce(what string, label repo.Label) string {
	if w.backups[label].keep {
		return what + " by force what is to be kept"
	}
	return what + " by force"
}

// unlessKept is what a deletion without force leads to.
func (w *world) unlessKept(label repo.Label, after state) state {
	if was := w.backups[label]; was.keep {
		return was
	}
	return after
}

// refused reports whether a deletion without force was, as it must be for a backup that is to be kept, and only then.
func (w *world) refused(what string, label repo.Label, err error) bool {
	w.t.Helper()
	var kept *repo.KeptError
	refused := errors.As(err, &kept) && kept.Err == nil
	if refused != w.backups[label].keep && !errors.Is(err, durable.ErrPowerCut) {
		w.fail("%s %s, which is %s: %v", what, label, w.backups[label], err)
	}
	if refused {
		w.log = append(w.log, what+" "+string(label)+": refused")
		w.did[what+" refused"]++
	}
	return refused
}

// compact writes some of the packs again, however little that pays.
func (w *world) compact(ctx context.Context, packs []string) error {
	o := repo.CompactOptions{Packs: packs, Share: w.rand.Float64() / 2, Budget: int64(w.rand.IntN(5 * tinyPack))}
	done, err := w.repo.Compact(ctx, o)
	w.log = append(w.log, fmt.Sprintf("compact %.2f %d: %+v, %v", o.Share, o.Budget, done, err))
	if err != nil && !errors.Is(err, durable.ErrPowerCut) {
		w.fail("%v", err)
	}
	w.did["compact"] += done.Packs
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
	what := "backup"
	if on != "" {
		what = "incremental backup"
	}
	return w.settle(what, label, state{content: maps.Clone(w.live), listed: true}, err)
}

// settle updates the model: after an error whoever looks decides whether it was done.
func (w *world) settle(what string, label repo.Label, after state, err error) error {
	w.t.Helper()
	w.log = append(w.log, fmt.Sprintf("%s: %s, %v", label, what, err))
	if err == nil {
		w.did[what]++
	} else {
		after = w.afterwards(label, after, err)
	}
	if after.gone() {
		delete(w.backups, label)
	} else {
		w.backups[label] = after
	}
	return err
}

// afterwards is what is true of a backup after the power has failed: what was, or what should be.
func (w *world) afterwards(label repo.Label, after state, err error) state {
	w.t.Helper()
	if !errors.Is(err, durable.ErrPowerCut) {
		w.fail("%v", err)
	}
	w.did["power cut"]++
	w.boot(w.survivor())
	found, before := w.found()[label], w.backups[label]
	switch {
	case found.same(after):
		return after
	case !found.same(before):
		w.fail("backup %s was %s, should be %s, and is %s", label, before, after, found)
	}
	return before
}

func (w *world) survivor() string {
	dir := w.t.TempDir()
	if err := w.fs.Image(dir); err != nil {
		w.fail("%v", err)
	}
	return dir
}

// found is what the repository says of its backups.
func (w *world) found() map[repo.Label]state {
	list, err := w.repo.Backups(context.Background())
	if err != nil {
		w.fail("%v", err)
	}
	trash, err := w.repo.InTrash(context.Background())
	if err != nil {
		w.fail("%v", err)
	}
	found := map[repo.Label]state{}
	for _, b := range list {
		if b.Err != nil {
			w.fail("%v", b.Err)
		}
		found[b.Label] = state{listed: true, keep: w.kept(b.Label)}
	}
	for _, b := range trash {
		if b.Err != nil || found[b.Label].listed {
			w.fail("backup %s in the trash: listed %t, %v", b.Label, found[b.Label].listed, b.Err)
		}
		found[b.Label] = state{trashed: true, keep: w.kept(b.Label)}
	}
	return found
}

func (w *world) kept(label repo.Label) bool {
	n, err := w.repo.Note(context.Background(), label)
	if err != nil {
		w.fail("%v", err)
	}
	return n.Keep
}

func (w *world) fail(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("%s\nafter:\n  %s", fmt.Sprintf(format, args...), strings.Join(w.log, "\n  "))
}

// check compares what is listed and what is in the trash with the model, byte for byte; with exact also that no
// pack is there that nothing needs.
func (w *world) check(exact bool) {
	w.t.Helper()
	found := w.found()
	if len(found) != len(w.backups) {
		w.fail("found %v, want %v", found, slices.Sorted(maps.Keys(w.backups)))
	}
	used := map[string]bool{}
	for label, want := range w.backups {
		if !found[label].same(want) {
			w.fail("backup %s is %s, want %s", label, found[label], want)
		}
		w.checkBackup(label, want.content, used)
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

// codingOf returns another pair for each seed, each codec and each cipher among the first five.
func codingOf(t *testing.T, seed uint64) coding {
	t.Helper()
	codecs := []container.Codec{container.None, container.Gzip, container.Zstd, container.LZ4, container.Bzip2}
	ciphers := []container.Cipher{container.Plain, container.AES256, container.AES192, container.AES128}
	return coding{codecs[seed%uint64(len(codecs))], keysFor(t, ciphers[seed%uint64(len(ciphers))])}
}

// Whatever is taken, deleted, kept, brought back, collected and interrupted in whatever order,
// in whatever codec and cipher: what is listed restores byte for byte, so does what waits in the
// trash, nothing that is to be kept goes without force, and after a collection nothing is left
// that no backup needs.
func TestBackupsStandAloneWhateverHappens(t *testing.T) {
	t.Parallel()
	seeds := uint64(5)
	if os.Getenv("PGMONETA_TEST_LONG") != "" {
		seeds = 200
	}
	did := map[string]int{}
	for seed := range seeds {
		c := codingOf(t, seed)
		t.Run(fmt.Sprintf("%d %s %s", seed, c.codec, c.keys.Cipher), func(t *testing.T) {
			w := newWorld(t, seed, c)
			w.run(context.Background())
			for what, n := range w.did {
				did[what] += n
			}
		})
	}
	t.Logf("%d sequences: %v", seeds, did)
	for _, what := range []string{"backup", "incremental backup", "keep", "unkeep", "delete", "delete refused", "delete by force what is to be kept",
		"trash", "trash refused", "trash by force what is to be kept", "undelete", "purge", "compact", "power cut"} {
		if did[what] == 0 {
			t.Errorf("%s never happened", what)
		}
	}
}

// run does things in turn, now and then with a power cut, and checks everything after each.
func (w *world) run(ctx context.Context) {
	for range 30 {
		if w.rand.IntN(3) == 0 {
			w.cut = w.fs.Ops() + 1 + w.rand.IntN(60)
		}
		err := w.step(ctx)
		if w.cut != 0 && w.fs.Ops() >= w.cut {
			w.boot(w.survivor()) // a collection was interrupted, or something that does not matter
		}
		w.cut = 0
		w.check(err == nil && w.log[len(w.log)-1] == "collect")
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
}
