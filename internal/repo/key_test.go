package repo

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/vault"
)

// masterKey returns a master key of its own for each name. Its secret is given,
// not derived, which would take a tenth of a second each time.
func masterKey(t testing.TB, name string) *vault.MasterKey {
	t.Helper()
	secret := bytes.Repeat([]byte(name), 64)[:64]
	var w vault.MasterWire
	w.Derived = vault.NewSecretWire(base64Of(secret))
	m, err := w.Key()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func keysOf(m *vault.MasterKey, c container.Cipher) Keys {
	return Keys{Cipher: c, Master: func() (*vault.MasterKey, error) { return m, nil }}
}

// sealed opens the repository "primary" below dir.
func sealed(t testing.TB, fsys durable.FS, dir string, k Keys) *Repository {
	t.Helper()
	r, err := Open(fsys, dir, "primary")
	if err != nil {
		t.Fatal(err)
	}
	r.UseKeys(k)
	return r
}

const testSystem = "7710649025785056541"

func bound(t testing.TB, dir string, k Keys) *Repository {
	t.Helper()
	r := sealed(t, durable.OS{}, dir, k)
	if err := r.Bind(context.Background(), OwnerWAL, testSystem); err != nil {
		t.Fatal(err)
	}
	return r
}

// content is the text of segment n, 1 MiB.
func content(n int) []byte {
	return bytes.Repeat([]byte(fmt.Sprintf("planted text %2d\n", n)), 1<<16)
}

func segmentName(n int) string { return pg.SegmentName(1, pg.LSN(n)<<20, 1<<20) }

func storeSegment(t testing.TB, r *Repository, n int) {
	t.Helper()
	if _, err := r.StoreSegment(context.Background(), segmentName(n), 1<<20, bytes.NewReader(content(n)), container.Zstd, 1); err != nil {
		t.Fatal(err)
	}
}

func readSegment(r *Repository, n int) error {
	seg, err := r.OpenSegment(context.Background(), segmentName(n))
	if err != nil {
		return err
	}
	defer func() { _ = seg.Close() }()
	stream := seg.Stream()
	defer func() { _ = stream.Close() }()
	got, err := io.ReadAll(stream)
	if err == nil && !bytes.Equal(got, content(n)) {
		err = errors.New("other bytes came back")
	}
	return err
}

func keyNames(t testing.TB, r *Repository) string {
	t.Helper()
	list, err := r.Engine().List(context.Background(), "key")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, o := range list {
		names = append(names, o.Name)
	}
	return strings.Join(names, " ")
}

func TestEverythingOfASealedRepositoryIsSealed(t *testing.T) {
	t.Parallel()
	ctx, dir := context.Background(), t.TempDir()
	r := bound(t, dir, keysOf(masterKey(t, "a"), container.AES256))
	storeSegment(t, r, 1)
	history := []byte("1\t0/5000000\tat restore point \"planted text\"\n")
	hole := Hole{Timeline: 1, From: 1 << 20, To: 2 << 20, Cause: "planted text"}
	if err := errors.Join(r.StoreHistory(ctx, 2, history), r.StoreHistory(ctx, 2, history), r.RecordHole(ctx, hole)); err != nil {
		t.Fatal(err)
	}
	m, err := r.NewManifestWriter(ctx, "20261121120000")
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Add(File{Path: "planted text", Kind: Regular}); err != nil {
		t.Fatal(err)
	}
	if err := m.Commit(ctx, Summary{Label: "20261121120000", SegmentSize: 1 << 20, Server: "planted text"}, nil); err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte("planted")) {
			t.Errorf("%s is legible", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}

	// Another process with the same master key reads all of it.
	r = sealed(t, durable.OS{}, dir, keysOf(masterKey(t, "a"), container.Plain))
	if err := readSegment(r, 1); err != nil {
		t.Error(err)
	}
	if got, err := r.HistoryContent(ctx, 2); err != nil || !bytes.Equal(got, history) {
		t.Errorf("history %q, %v", got, err)
	}
	if holes, err := r.Holes(ctx); err != nil || len(holes) != 1 || holes[0].Cause != hole.Cause {
		t.Errorf("holes %v, %v", holes, err)
	}
	if b, err := r.Find(ctx, "newest"); err != nil || b.Err != nil || b.Summary.Server != "planted text" {
		t.Errorf("backup %+v, %v", b, err)
	}
}

func TestSealingThatCannotBeDoneIsFatal(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	none := Keys{Cipher: container.AES256, Master: func() (*vault.MasterKey, error) { return nil, vault.ErrNoMasterKey }}
	for name, k := range map[string]Keys{"no master key file": none, "no source of keys": {Cipher: container.AES128}} {
		dir := t.TempDir()
		r := sealed(t, durable.OS{}, dir, k)
		err := r.Bind(ctx, OwnerWAL, testSystem)
		if !errors.As(err, new(*NoMasterError)) || !strings.Contains(err.Error(), "primary") {
			t.Errorf("%s: Bind: %v, want a NoMasterError of the server", name, err)
		}
		if _, err := r.StoreSegment(ctx, segmentName(1), 1<<20, bytes.NewReader(content(1)), container.Zstd, 1); !errors.As(err, new(*NoMasterError)) {
			t.Errorf("%s: StoreSegment: %v, want a NoMasterError", name, err)
		}
		if err := r.StoreHistory(ctx, 2, []byte("text")); !errors.As(err, new(*NoMasterError)) {
			t.Errorf("%s: StoreHistory: %v, want a NoMasterError", name, err)
		}
		if _, err := r.NewContainer(io.Discard, "pack/1", container.Pack, container.None); err == nil {
			t.Errorf("%s: a container was begun", name)
		}
		if list, err := r.Engine().List(ctx, ""); err != nil || len(list) != 1 {
			t.Errorf("%s: %v, %v: want nothing but format", name, list, err)
		}
	}
}

func TestKeyTroublesAreToldApart(t *testing.T) {
	t.Parallel()
	ctx, dir := context.Background(), t.TempDir()
	good := keysOf(masterKey(t, "a"), container.AES256)
	storeSegment(t, bound(t, dir, good), 1)
	path := filepath.Join(dir, "primary", "key", "1", "1")
	key, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	read := func(k Keys) error { return readSegment(sealed(t, durable.OS{}, dir, k), 1) }

	err = read(Keys{})
	if !errors.As(err, new(*NoMasterError)) || !strings.Contains(err.Error(), segmentName(1)) {
		t.Errorf("without a master key: %v", err)
	}
	var wrong *WrongMasterError
	if err := read(keysOf(masterKey(t, "b"), container.AES256)); !errors.As(err, &wrong) || wrong.Object != "key/1/1" || !errors.As(err, new(*container.KeyError)) {
		t.Errorf("with another master key: %v", err)
	}
	if err := sealed(t, durable.OS{}, dir, keysOf(masterKey(t, "b"), container.AES256)).Bind(ctx, OwnerJob, testSystem); !errors.As(err, &wrong) {
		t.Errorf("Bind with another master key: %v, want a WrongMasterError", err)
	}

	for _, forged := range [][]byte{
		bytes.Replace(key, []byte(`"plain":false`), []byte(`"plain":true`), 1),
		bytes.Replace(key, []byte(`"number":1`), []byte(`"number":2`), 1),
		bytes.Replace(key, []byte(`"repository":"`), []byte(`"repository":"A`), 1),
		key[:len(key)/2],
		[]byte("{}"),
	} {
		if err := os.WriteFile(path, forged, 0o600); err != nil {
			t.Fatal(err)
		}
		var d *container.DamagedError
		if err := read(good); !errors.As(err, &d) || d.Object != "key/1/1" {
			t.Errorf("key object %s: %v, want a DamagedError of key/1/1", forged, err)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	var missing *MissingKeyError
	if err := read(good); !errors.As(err, &missing) || missing.Number != 1 {
		t.Errorf("without the key object: %v, want a MissingKeyError", err)
	}
}

func TestPlainObjectCannotPassForASealedOne(t *testing.T) {
	t.Parallel()
	ctx, dir := context.Background(), t.TempDir()
	k := keysOf(masterKey(t, "a"), container.AES256)
	r := bound(t, dir, k)
	storeSegment(t, r, 1)
	if err := r.StoreHistory(ctx, 2, []byte("1\t0/5000000\treason\n")); err != nil {
		t.Fatal(err)
	}

	// Somebody who has no key makes a repository of his own and copies objects over.
	elsewhere := t.TempDir()
	forged := bound(t, elsewhere, Keys{})
	storeSegment(t, forged, 1)
	for _, object := range []string{segmentObject(segmentName(1))} {
		b, err := os.ReadFile(filepath.Join(elsewhere, "primary", object))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, "primary", object), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "primary", historyObject(2)), []byte("1\t0/6000000\tforged\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, r := range []*Repository{r, sealed(t, durable.OS{}, dir, k)} {
		var d *container.DamagedError
		if err := readSegment(r, 1); !errors.Is(err, ErrPlain) || !errors.As(err, &d) || d.Object != segmentObject(segmentName(1)) {
			t.Errorf("a plain segment in the place of a sealed one: %v, want ErrPlain", err)
		}
		if _, err := r.HistoryContent(ctx, 2); !errors.Is(err, ErrPlain) {
			t.Errorf("a plain history in the place of a sealed one: %v, want ErrPlain", err)
		}
	}
	if err := readSegment(sealed(t, durable.OS{}, dir, Keys{}), 1); !errors.As(err, new(*NoMasterError)) {
		t.Errorf("a plain segment, without the master key: %v, want a NoMasterError", err)
	}
}

func TestPlainAndSealedObjectsSideBySide(t *testing.T) {
	t.Parallel()
	master := masterKey(t, "a")
	t.Run("encryption switched on", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		storeSegment(t, bound(t, dir, Keys{}), 1)
		r := bound(t, dir, keysOf(master, container.AES256))
		storeSegment(t, r, 2)
		for _, r := range []*Repository{r, sealed(t, durable.OS{}, dir, keysOf(master, container.Plain))} {
			if err := errors.Join(readSegment(r, 1), readSegment(r, 2)); err != nil {
				t.Error(err)
			}
		}
	})
	t.Run("encryption switched off", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		storeSegment(t, bound(t, dir, keysOf(master, container.AES128)), 1)
		r := sealed(t, durable.OS{}, dir, Keys{})
		if err := r.Bind(context.Background(), OwnerWAL, testSystem); !errors.As(err, new(*NoMasterError)) {
			t.Errorf("without the master key: %v, want a NoMasterError", err)
		}
		for n := 2; n < 4; n++ {
			r = bound(t, dir, keysOf(master, container.Plain))
			storeSegment(t, r, n)
		}
		if got := keyNames(t, r); got != "key/1/1 key/1/2" {
			t.Errorf("keys are %s: want one note that plain objects follow", got)
		}
		r = bound(t, dir, keysOf(master, container.AES256))
		storeSegment(t, r, 4)
		for n := 1; n < 5; n++ {
			if err := readSegment(r, n); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestRotatedKeySealsNewObjectsAndOldOnesStay(t *testing.T) {
	t.Parallel()
	ctx, dir := context.Background(), t.TempDir()
	k := keysOf(masterKey(t, "a"), container.AES256)
	running := bound(t, dir, k) // a WAL worker that goes on all the time
	storeSegment(t, running, 1)
	admin := sealed(t, durable.OS{}, dir, k)
	if n, err := admin.RotateKey(ctx); err != nil || n != 2 {
		t.Fatalf("RotateKey: %d, %v; want 2", n, err)
	}
	storeSegment(t, running, 2)
	for n, want := range map[int]uint32{1: 1, 2: 2} {
		for _, r := range []*Repository{running, sealed(t, durable.OS{}, dir, k)} {
			if err := readSegment(r, n); err != nil {
				t.Errorf("segment %d: %v", n, err)
			}
		}
		seg, err := running.OpenSegment(ctx, segmentName(n))
		if err != nil {
			t.Fatal(err)
		}
		if got := seg.Header().Key; got != want {
			t.Errorf("segment %d is sealed with key %d, want %d", n, got, want)
		}
		_ = seg.Close()
	}
	empty := sealed(t, durable.OS{}, t.TempDir(), k)
	if _, err := empty.RotateKey(ctx); err == nil {
		t.Error("a key was rotated where there is none")
	}
}

// either returns what a process has while the master key is being changed.
func either(t testing.TB, a, b string) *vault.MasterKey {
	t.Helper()
	wire := func(name string) vault.SecretWire {
		return vault.NewSecretWire(base64Of(bytes.Repeat([]byte(name), 64)[:64]))
	}
	m, err := vault.MasterWire{Derived: wire(a), Second: wire(b)}.Key()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestPowerCutWhileTheMasterKeyChanges cuts the power at every operation of the
// change. As long as the new master key is not the only one, both must open
// everything; afterwards the new one must.
func TestPowerCutWhileTheMasterKeyChanges(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	before := t.TempDir()
	old, next := keysOf(masterKey(t, "a"), container.AES256), keysOf(masterKey(t, "b"), container.AES256)
	both := keysOf(either(t, "b", "a"), container.AES256)
	r := bound(t, before, old)
	storeSegment(t, r, 1)
	if _, err := r.RotateKey(ctx); err != nil {
		t.Fatal(err)
	}
	storeSegment(t, r, 2)
	for _, step := range []struct {
		name string
		do   func(*Repository) error
		by   []Keys // who must be able to read after the cut
	}{
		{"wrap", func(r *Repository) error { return r.WrapKeys(ctx, masterKey(t, "b")) }, []Keys{old}},
		{"drop", func(r *Repository) error {
			return errors.Join(r.WrapKeys(ctx, masterKey(t, "b")), r.DropWraps(ctx, masterKey(t, "b")))
		}, nil},
		{"rotate", func(r *Repository) error { _, err := r.RotateKey(ctx); return err }, []Keys{old}},
	} {
		for cut := 1; ; cut++ {
			dir, after := t.TempDir(), t.TempDir()
			if err := os.CopyFS(dir, os.DirFS(before)); err != nil {
				t.Fatal(err)
			}
			fsys, err := durable.NewPowerCut(dir, cut)
			if err != nil {
				t.Fatal(err)
			}
			done := step.do(sealed(t, fsys, dir, both)) == nil && fsys.Ops() < cut
			fsys.Cut()
			if err := fsys.Image(after); err != nil {
				t.Fatal(err)
			}
			who := append(step.by, both)
			if done && step.name != "rotate" {
				who = append(who, next)
			}
			for i, k := range who {
				survivor := sealed(t, durable.OS{}, after, k)
				if err := errors.Join(readSegment(survivor, 1), readSegment(survivor, 2)); err != nil {
					t.Fatalf("%s, cut at operation %d, reader %d: %v", step.name, cut, i, err)
				}
			}
			// Whoever takes it up again comes to the end.
			again := sealed(t, durable.OS{}, after, both)
			if err := errors.Join(again.WrapKeys(ctx, masterKey(t, "b")), again.DropWraps(ctx, masterKey(t, "b"))); err != nil {
				t.Fatalf("%s, cut at operation %d: taken up again: %v", step.name, cut, err)
			}
			if err := readSegment(sealed(t, durable.OS{}, after, next), 2); err != nil {
				t.Fatalf("%s, cut at operation %d: at the end: %v", step.name, cut, err)
			}
			if err := readSegment(sealed(t, durable.OS{}, after, old), 2); !errors.As(err, new(*WrongMasterError)) {
				t.Fatalf("%s, cut at operation %d: the old master key at the end: %v, want a WrongMasterError", step.name, cut, err)
			}
			if done {
				break
			}
		}
	}
}

func TestPowerCutWhileTheFirstKeyIsMade(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	k := keysOf(masterKey(t, "a"), container.AES256)
	for cut := 1; ; cut++ {
		dir, after := t.TempDir(), t.TempDir()
		fsys, err := durable.NewPowerCut(dir, cut)
		if err != nil {
			t.Fatal(err)
		}
		stored := false
		if r, err := Open(fsys, dir, "primary"); err == nil {
			r.UseKeys(k)
			if r.Bind(ctx, OwnerWAL, testSystem) == nil {
				_, err := r.StoreSegment(ctx, segmentName(1), 1<<20, bytes.NewReader(content(1)), container.Zstd, 1)
				stored = err == nil
			}
		}
		fsys.Cut()
		if err := fsys.Image(after); err != nil {
			t.Fatal(err)
		}
		survivor := sealed(t, durable.OS{}, after, k)
		has, err := survivor.HasSegment(ctx, segmentName(1))
		if err != nil || stored && !has {
			t.Fatalf("cut at operation %d: stored %t, there %t, %v", cut, stored, has, err)
		}
		if has {
			if err := readSegment(survivor, 1); err != nil {
				t.Fatalf("cut at operation %d: %v", cut, err)
			}
		}
		if stored && fsys.Ops() < cut {
			return
		}
	}
}

func TestConcurrentFirstKeys(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	k := keysOf(masterKey(t, "a"), container.AES256)
	errs := make(chan error)
	const processes = 6
	for n := range processes {
		go func() {
			r := sealed(t, durable.OS{}, dir, k)
			err := r.Bind(context.Background(), OwnerWAL, testSystem)
			if err == nil {
				_, err = r.StoreSegment(context.Background(), segmentName(n), 1<<20, bytes.NewReader(content(n)), container.None, 0)
			}
			errs <- err
		}()
	}
	for range processes {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	r := sealed(t, durable.OS{}, dir, k)
	for n := range processes {
		if err := readSegment(r, n); err != nil {
			t.Error(err)
		}
	}
	if got := keyNames(t, r); got != "key/1/1" {
		t.Errorf("keys are %s, want key/1/1", got)
	}
}

func FuzzWrap(f *testing.F) {
	key, err := container.NewKey("ID", 1, [32]byte{1})
	if err != nil {
		f.Fatal(err)
	}
	w := &wrap{Wrap: 1}
	if err := w.seal(key, masterKey(f, "a")); err != nil {
		f.Fatal(err)
	}
	f.Add("key/1/1", []byte(fmt.Sprintf(`{"key_version":1,"number":1,"wrap":1,"repository":"ID","master":"","salt":%q,"wrapped":%q}`, base64Of(w.Salt), base64Of(w.Wrapped))))
	f.Add("key/16777216/1", []byte("{}"))
	f.Fuzz(func(t *testing.T, name string, content []byte) {
		w, err := parseWrap(name, content)
		if err != nil {
			return
		}
		if k, err := w.open("ID", masterKey(t, "a")); err == nil && (k.Number != 1 || k.Secret() != key.Secret()) {
			t.Errorf("another key came out of %s", content)
		}
	})
}

func base64Of(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

func TestObjectsInEachOthersPlaceAreRefused(t *testing.T) {
	t.Parallel()
	dir, elsewhere := t.TempDir(), t.TempDir()
	k := keysOf(masterKey(t, "a"), container.AES256)
	r := bound(t, dir, k)
	for n := 1; n < 3; n++ {
		storeSegment(t, r, n)
	}
	storeSegment(t, bound(t, elsewhere, k), 1)
	object := func(base string, n int) string { return filepath.Join(base, "primary", segmentObject(segmentName(n))) }
	good, err := os.ReadFile(object(dir, 1))
	if err != nil {
		t.Fatal(err)
	}
	for _, from := range []string{object(dir, 2), object(elsewhere, 1)} {
		b, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(object(dir, 1), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		var d *container.DamagedError
		if err := readSegment(r, 1); !errors.Is(err, container.ErrForged) || !errors.As(err, &d) || d.Object != segmentObject(segmentName(1)) {
			t.Errorf("%s in the place of segment 1: %v, want ErrForged about that", from, err)
		}
	}
	// What was stored under this name is good again: the limit of what can be found.
	if err := os.WriteFile(object(dir, 1), good, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := readSegment(r, 1); err != nil {
		t.Error(err)
	}
}

// TestKeyTroubleIsNeverAMissingObject holds what a recovery ends by, and what hides a backup from a listing.
func TestKeyTroubleIsNeverAMissingObject(t *testing.T) {
	t.Parallel()
	ctx, dir := context.Background(), t.TempDir()
	good := keysOf(masterKey(t, "a"), container.AES256)
	r := bound(t, dir, good)
	storeSegment(t, r, 1)
	if err := r.StoreHistory(ctx, 2, []byte("1\t0/5000000\treason\n")); err != nil {
		t.Fatal(err)
	}
	gone := Keys{Master: func() (*vault.MasterKey, error) { return nil, fmt.Errorf("read master key: %w", fs.ErrNotExist) }}
	check := func(name string, k Keys) {
		t.Helper()
		r := sealed(t, durable.OS{}, dir, k)
		_, err := r.HistoryContent(ctx, 2)
		for _, err := range []error{err, readSegment(r, 1)} {
			if err == nil || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	check("master key file gone", gone)
	for _, object := range []string{"format", "key/1/1"} {
		if err := os.Rename(filepath.Join(dir, "primary", object), filepath.Join(dir, "moved")); err != nil {
			t.Fatal(err)
		}
		check(object+" gone", good)
		if err := os.Rename(filepath.Join(dir, "moved"), filepath.Join(dir, "primary", object)); err != nil {
			t.Fatal(err)
		}
	}
}
