package foreign

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// sample is a backup.info that C pgmoneta 0.22.0 wrote.
const sample = `PGMONETA_VERSION=0.22.0
STATUS=1
LABEL=20261121123700
WAL=000000010000000000000006
BACKUP=26185728
RESTORE=28467200
BIGGEST_FILE=16777216
ELAPSED=0.8557
BASEBACKUP_ELAPSED=0.6146
MAJOR_VERSION=15
MINOR_VERSION=18
KEEP=1
TABLESPACES=1
COMPRESSION=18
ENCRYPTION=2
TABLESPACE1=tblspc_ts1
TABLESPACE_OID1=16385
TABLESPACE_PATH1=/var/lib/ts1
START_WALPOS=0/6000028
END_WALPOS=0/6000100
CHKPT_WALPOS=0/6000060
START_TIMELINE=1
END_TIMELINE=1
TYPE=0
PARENT=
COMMENTS=why|because
EXTRA=
`

func TestParseInfo(t *testing.T) {
	i, err := parseInfo("backup.info", []byte(sample))
	if err != nil {
		t.Fatal(err)
	}
	if i.start != 0x6000028 || i.end != 0x6000100 || i.checkpoint != 0x6000060 || i.major != 15 || i.minor != 18 || !i.keep || i.incremental ||
		i.codec() != container.Zstd || i.encryption != 2 || i.comments != "why|because" || i.size != 26185728 || i.elapsed.Milliseconds() != 855 {
		t.Errorf("%+v", i)
	}
	if ts := i.tablespaces; len(ts) != 1 || ts[0] != (repo.Tablespace{OID: 16385, Name: "ts1", Location: "/var/lib/ts1"}) {
		t.Errorf("tablespaces %+v", ts)
	}
}

func TestParseInfoNamesWhatIsWrong(t *testing.T) {
	tests := []struct {
		name, old, new, key string
	}{
		{"no end", "END_WALPOS=0/6000100\n", "", "END_WALPOS"},
		{"end before start", "END_WALPOS=0/6000100", "END_WALPOS=0/6000000", "END_WALPOS"},
		{"not a number", "MAJOR_VERSION=15", "MAJOR_VERSION=x", "MAJOR_VERSION"},
		{"negative", "START_TIMELINE=1", "START_TIMELINE=-1", "START_TIMELINE"},
		{"unknown cipher", "ENCRYPTION=2", "ENCRYPTION=9", "ENCRYPTION"},
		{"incremental without a parent", "TYPE=0", "TYPE=1", "PARENT"},
		{"unknown type", "TYPE=0", "TYPE=2", "TYPE"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parseInfo("f", []byte(strings.Replace(sample, tt.old, tt.new, 1)))
			var odd *InfoError
			if !errors.As(err, &odd) || odd.Key != tt.key {
				t.Errorf("error %v, want one of %s", err, tt.key)
			}
		})
	}
}

// Wherever the file was cut off, it either says the same about what cannot be done without, or
// is refused.
func TestParseInfoCutOffAnywhere(t *testing.T) {
	whole, _ := parseInfo("f", []byte(sample))
	for n := range len(sample) {
		i, err := parseInfo("f", []byte(sample[:n]))
		if err == nil && (i.start != whole.start || i.end != whole.end || i.encryption != whole.encryption || i.compression != whole.compression || i.endTLI != whole.endTLI) {
			t.Errorf("cut off at %d: %+v", n, i)
		}
	}
}

func FuzzParseInfo(f *testing.F) {
	f.Add([]byte(sample))
	f.Add([]byte("STATUS=1\nLABEL=x=y\n\n=\nTABLESPACES=64\nTABLESPACE_OID64=1\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		i, err := parseInfo("f", b)
		if err == nil && (i.end <= i.start || i.startTLI == 0 || i.endTLI == 0 || i.encryption > 3 || len(i.tablespaces) > maxTablespaces) {
			t.Errorf("accepted %+v", i)
		}
		_ = i.codec().String()
	})
}

// The stream must decrypt and authenticate what the standard library sealed as one message.
func TestGCMReaderReadsWholeMessages(t *testing.T) {
	for _, size := range []int{16, 24, 32} {
		for _, n := range []int{0, 1, 15, 16, 17, gcmChunk - 1, gcmChunk, gcmChunk + 1, 3*gcmChunk + 5, 4 * gcmChunk} {
			key, nonce, plain := noise(size), noise(nonceSize), noise(n)
			block, err := aes.NewCipher(key)
			if err != nil {
				t.Fatal(err)
			}
			aead, err := cipher.NewGCM(block)
			if err != nil {
				t.Fatal(err)
			}
			sealed := aead.Seal(nil, nonce, plain, nil)
			read := func(sealed []byte) ([]byte, error) {
				r, err := newGCMReader(bytes.NewReader(sealed), int64(headSize+len(sealed)), key, nonce)
				if err != nil {
					return nil, err
				}
				return io.ReadAll(r)
			}
			if got, err := read(sealed); err != nil || !bytes.Equal(got, plain) {
				t.Errorf("key of %d, %d bytes: %v", size, n, err)
			}
			for range 4 {
				at := rand.IntN(len(sealed))
				sealed[at] ^= 0x10
				if _, err := read(sealed); !errors.Is(err, ErrDamaged) {
					t.Errorf("key of %d, %d bytes, byte %d altered: %v", size, n, at, err)
				}
				sealed[at] ^= 0x10
			}
			if _, err := read(sealed[:len(sealed)-1]); !errors.Is(err, ErrDamaged) {
				t.Errorf("key of %d, %d bytes, cut off: %v", size, n, err)
			}
		}
	}
}

func noise(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return b
}

func BenchmarkGCMReader(b *testing.B) {
	const size = 16 << 20
	sealed, key := make([]byte, size+tagSize), make([]byte, 32)
	b.SetBytes(size)
	for b.Loop() {
		r, err := newGCMReader(bytes.NewReader(sealed), headSize+size+tagSize, key, make([]byte, nonceSize))
		if err != nil {
			b.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, r)
	}
}

func BenchmarkGCMOfTheLibrary(b *testing.B) {
	const size = 16 << 20
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		b.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		b.Fatal(err)
	}
	sealed, plain := aead.Seal(nil, make([]byte, nonceSize), make([]byte, size), nil), make([]byte, 0, size)
	b.SetBytes(size)
	for b.Loop() {
		if _, err := aead.Open(plain, make([]byte, nonceSize), sealed, nil); err != nil {
			b.Fatal(err)
		}
	}
}

func FuzzLZ4Reader(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0, 0})
	f.Add([]byte{6, 0, 0, 0, 0x50, 'h', 'e', 'l', 'l', 'o', 9, 0, 0, 0, 0x01, 3, 0, 0x50, 'w', 'o', 'r', 'l', 'd'})
	f.Add([]byte{0xFF, 0xFF, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		in, err := decompress(container.LZ4, bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, in); err != nil && !errors.Is(err, ErrDamaged) {
			t.Errorf("error without a class: %v", err)
		}
	})
}

func FuzzBlockList(f *testing.F) {
	f.Add([]byte{0x0d, 0x1f, 0xae, 0xd3, 1, 0, 0, 0, 9, 0, 0, 0, 4, 0, 0, 0}, int64(2*blockSize))
	f.Add([]byte{0x0d, 0x1f, 0xae, 0xd3, 0, 0, 0, 0, 0, 0, 0, 0}, int64(12))
	f.Fuzz(func(t *testing.T, b []byte, size int64) {
		l, err := parseBlockList(bytes.NewReader(b))
		if err != nil {
			return
		}
		if l.blocks() > maxBlocks {
			t.Errorf("%d blocks", l.blocks())
		}
		if n, err := l.padding(size, 16); err == nil && (n < 0 || n > 2*blockSize) {
			t.Errorf("padding of %d bytes", n)
		}
	})
}

func FuzzParseSum(f *testing.F) {
	f.Add([]byte(strings.Repeat("0a", 64) + " *./data/base/1/1259.zstd\n"))
	f.Add([]byte(strings.Repeat("0a", 64) + " *.backup.info\n"))
	f.Add([]byte(strings.Repeat("0a", 64) + " *./../../etc/passwd\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, name, ok := parseSum(b); ok && !filepath.IsLocal(name) {
			t.Errorf("accepted %q", name)
		}
	})
}

// The bug of C pgmoneta before 17 shifts the blocks by what the size of the file shows.
func TestPaddingOfIncrementalFiles(t *testing.T) {
	two := blockList{numbers: []uint32{3, 7}}
	tests := []struct {
		list  blockList
		size  int64
		major int
		want  int64 // -1 for an error
	}{
		{two, 3 * blockSize, 17, blockSize - 20},
		{two, 3 * blockSize, 16, blockSize - 20},
		{two, 8207 + 2*blockSize, 16, 8187}, // as measured with the calls of C pgmoneta
		{two, 8207 + 2*blockSize, 17, -1},
		{two, 3*blockSize + 1, 16, -1},
		{blockList{truncated: 5}, 12, 17, 0},
		{blockList{truncated: 5}, blockSize, 17, -1},
	}
	for _, tt := range tests {
		got, err := tt.list.padding(tt.size, tt.major)
		if err != nil {
			got = -1
		}
		if got != tt.want {
			t.Errorf("padding(%d bytes, PostgreSQL %d) of %d blocks = %d, want %d", tt.size, tt.major, len(tt.list.numbers), got, tt.want)
		}
	}
}

// incrementalFile encodes blocks that are filled with their mark.
func incrementalFile(truncated uint32, blocks map[uint32]byte) []byte {
	var numbers []uint32
	for n := range uint32(100) {
		if _, ok := blocks[n]; ok {
			numbers = append(numbers, n)
		}
	}
	le := func(b []byte, n uint32) []byte { return append(b, byte(n), byte(n>>8), byte(n>>16), byte(n>>24)) }
	b := le(le(le(nil, incrementalMagic), uint32(len(numbers))), truncated)
	for _, n := range numbers {
		b = le(b, n)
	}
	if len(numbers) > 0 {
		b = append(b, make([]byte, blockSize-len(b))...)
	}
	for _, n := range numbers {
		b = append(b, bytes.Repeat([]byte{blocks[n]}, blockSize)...)
	}
	return b
}

func TestCombinerFollowsTruncations(t *testing.T) {
	whole := bytes.Join([][]byte{bytes.Repeat([]byte{'a'}, blockSize), bytes.Repeat([]byte{'b'}, blockSize), bytes.Repeat([]byte{'c'}, blockSize)}, nil)
	tests := []struct {
		name   string
		layers [][]byte // incremental ones, newest first
		want   string   // a mark for each block
	}{
		{"nothing changed", [][]byte{incrementalFile(3, nil)}, "abc"},
		{"newest wins", [][]byte{incrementalFile(3, map[uint32]byte{1: 'X'}), incrementalFile(3, map[uint32]byte{0: 'Y', 1: 'Y'})}, "YXc"},
		{"grown by blocks nobody has", [][]byte{incrementalFile(3, map[uint32]byte{4: 'X'})}, "abc0X"},
		{"shorter", [][]byte{incrementalFile(1, nil), incrementalFile(3, map[uint32]byte{2: 'Y'})}, "a"},
		{"cut off, then grown again", [][]byte{incrementalFile(1, map[uint32]byte{2: 'X'}), incrementalFile(5, map[uint32]byte{1: 'Y', 4: 'Y'})}, "a0X"},
		{"longer than the whole one", [][]byte{incrementalFile(5, nil)}, "abc00"},
		{"empty", [][]byte{incrementalFile(0, nil)}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var layers []*layer
			for i, b := range append(tt.layers, whole) {
				l, err := newLayer(io.NopCloser(bytes.NewReader(b)), i == len(tt.layers), int64(len(b)), 17)
				if err != nil {
					t.Fatal(err)
				}
				layers = append(layers, l)
			}
			got, err := io.ReadAll(newCombiner(layers))
			if err != nil || len(got)%blockSize != 0 {
				t.Fatalf("%d bytes, %v", len(got), err)
			}
			marks := ""
			for at := 0; at < len(got); at += blockSize {
				marks += string(max(got[at], '0'))
			}
			if marks != tt.want {
				t.Errorf("blocks %s, want %s", marks, tt.want)
			}
		})
	}
}

// fixture is a repository of small files, shared by links.
func fixture(t *testing.T) *Repository {
	t.Helper()
	base := t.TempDir()
	own, err := repo.Open(durable.OS{}, base, "primary")
	if err != nil {
		t.Fatal(err)
	}
	r, err := Open(durable.OS{}, own, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	before := ""
	for _, l := range []string{"20260101000000", "20260102000000", "20260103000000"} {
		dir := filepath.Join(r.dir, "backup", l)
		make := func(name, content string) {
			path := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		make("backup.info", strings.Replace(sample, "20261121123700", l, 1))
		make("backup.sha512", "")
		make("data/own", l)
		make("tblspc_fast/own", l)
		for i := range 4 {
			name := fmt.Sprintf("data/base/%d", i)
			// The first backup has all; each later one links to the one before.
			if before == "" {
				make(name, "shared "+name)
				continue
			}
			make(name, "")
			if err := errors.Join(os.Remove(filepath.Join(dir, name)), os.Symlink("/elsewhere/primary/backup/"+before+"/"+name, filepath.Join(dir, name))); err != nil {
				t.Fatal(err)
			}
		}
		before = l
	}
	return r
}

// whole reports what is wrong with a backup of a fixture.
func (r *Repository) whole(l repo.Label) error {
	for i := range 4 {
		name := fmt.Sprintf("data/base/%d", i)
		s, err := r.find(backupDir(l)+"/"+name, container.None, false, nil)
		if err != nil {
			return err
		}
		b, err := os.ReadFile(filepath.Join(r.dir, s.name))
		if err != nil || string(b) != "shared "+name {
			return fmt.Errorf("%s holds %q: %w", s.name, b, err)
		}
	}
	return nil
}

func TestDeleteInterruptedAnywhereHurtsNobody(t *testing.T) {
	t.Parallel()
	crash := errors.New("crash")
	for _, gone := range []repo.Label{"20260101000000", "20260102000000", "20260103000000"} {
		for at := 0; ; at++ {
			r := fixture(t)
			steps := 0
			r.op = func(string, string) error {
				if steps++; steps > at {
					return crash
				}
				return nil
			}
			err := r.Delete(context.Background(), gone)
			list, lerr := r.Backups(context.Background())
			if lerr != nil {
				t.Fatal(lerr)
			}
			for _, b := range list {
				if werr := r.whole(b.Label); werr != nil {
					t.Errorf("delete %s, interrupted after %d steps: backup %s: %v", gone, at, b.Label, werr)
				}
			}
			if err == nil {
				break
			}
			if !errors.Is(err, crash) {
				t.Fatal(err)
			}
			// The next attempt, or a sweep if the backup is gone already, finishes the work.
			r.op = func(string, string) error { return nil }
			if len(list) == 3 {
				err = r.Delete(context.Background(), gone)
			} else {
				err = nil
			}
			if list, _ := r.Backups(context.Background()); err != nil || len(list) != 2 {
				t.Errorf("delete %s again after %d steps: %v", gone, at, err)
			}
		}
	}
}

// chain makes what decides about deletions of a full backup and of incremental ones, each on the one before.
func chain(t *testing.T, length int) (*Repository, []repo.Label) {
	t.Helper()
	r := fixture(t)
	if err := os.RemoveAll(filepath.Join(r.dir, "backup")); err != nil {
		t.Fatal(err)
	}
	labels := make([]repo.Label, length)
	kind := "TYPE=0\nPARENT="
	for i := range labels {
		labels[i] = repo.Label(fmt.Sprintf("202602%02d000000", i+1))
		dir := filepath.Join(r.dir, backupDir(labels[i]))
		text := strings.NewReplacer("20261121123700", string(labels[i]), "TYPE=0\nPARENT=", kind, "KEEP=1", "KEEP=0").Replace(sample)
		err := errors.Join(os.MkdirAll(filepath.Join(dir, "data"), 0o700),
			os.WriteFile(filepath.Join(dir, infoName), []byte(text), 0o600), os.WriteFile(filepath.Join(dir, sumsName), nil, 0o600))
		if err != nil {
			t.Fatal(err)
		}
		kind = "TYPE=1\nPARENT=" + string(labels[i])
	}
	return r, labels
}

func words(list []repo.Label) string {
	text := make([]string, len(list))
	for i, l := range list {
		text[i] = string(l)
	}
	return strings.Join(text, " ")
}

// The refusal says what deletes a chain from the refused backup on; the newest of it goes alone.
func TestDeleteRefusesParents(t *testing.T) {
	t.Parallel()
	for _, length := range []int{2, 3, 19} {
		for _, at := range []int{0, length / 2, length - 1} {
			r, labels := chain(t, length)
			touched := false
			r.op = func(string, string) error { touched = true; return nil }
			err := r.Delete(context.Background(), labels[at])
			if at == length-1 {
				if list, lerr := r.labels(context.Background()); err != nil || lerr != nil || !slices.Equal(list, labels[:at]) {
					t.Errorf("the newest of %d: %v, %v; left %v", length, err, lerr, list)
				}
				continue
			}
			var refused *ChildError
			if !errors.As(err, &refused) || touched {
				t.Fatalf("number %d of %d: %v, touched %v", at, length, err, touched)
			}
			if got, want := refused.Command(), "pgmoneta-cli delete primary "+words(labels[at:]); got != want {
				t.Errorf("command %q, want %q", got, want)
			}
			mebibytes := fmt.Sprintf("to take %d MiB together", (26185728*int64(length-at)+1<<20-1)>>20)
			for _, part := range []string{strings.ReplaceAll(words(labels[at+1:]), " ", ", ") + " of C pgmoneta need", "backup " + string(labels[at]) + ": nothing was deleted", mebibytes} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q does not say %q", err, part)
				}
			}
		}
	}
}

func TestDependentsOfSeveral(t *testing.T) {
	t.Parallel()
	r, labels := chain(t, 5)
	// Somebody marked the third as not valid, and the fourth was never finished.
	for _, l := range labels[2:4] {
		path := filepath.Join(r.dir, backupDir(l), infoName)
		b, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(path, []byte(strings.Replace(string(b), "STATUS=1", "STATUS=0", 1)), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(filepath.Join(r.dir, backupDir(labels[3]), sumsName)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ gone, want []repo.Label }{
		{nil, nil},
		{labels, nil},
		{labels[4:], nil},
		{labels[2:3], labels[3:]},
		{[]repo.Label{labels[3], labels[0]}, []repo.Label{labels[1], labels[2], labels[4]}},
		{[]repo.Label{"20200101000000"}, nil},
	} {
		list, err := r.Dependents(context.Background(), tt.gone...)
		got := make([]repo.Label, len(list))
		for i, b := range list {
			got[i] = b.Label
		}
		if err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("dependents of %v: %v, %v; want %v", tt.gone, got, err, tt.want)
		}
	}
	// Parents in a circle, which nobody but an editor makes, end the search too.
	path := filepath.Join(r.dir, backupDir(labels[0]), infoName)
	b, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, []byte(strings.Replace(string(b), "TYPE=0\nPARENT=", "TYPE=1\nPARENT="+string(labels[4]), 1)), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if list, err := r.Dependents(context.Background(), labels[2]); err != nil || len(list) != 4 {
		t.Errorf("in a circle: %d, %v", len(list), err)
	}
}

// A backup.info that was cut off, of a backup that cannot be read without its master key, hides no parent.
func TestParentIsKnownWithoutBackupInfo(t *testing.T) {
	t.Parallel()
	r, labels := chain(t, 2)
	at := func(l repo.Label, name string) string { return filepath.Join(r.dir, backupDir(l), name) }
	const start = "START WAL LOCATION: 0/%X000028 (file 00000001000000000000000%[1]X)\nCHECKPOINT LOCATION: 0/%[1]X000060\nSTART TIMELINE: 1\n"
	err := errors.Join(os.Truncate(at(labels[1], infoName), 40),
		os.WriteFile(at(labels[0], "data/backup_label"), fmt.Appendf(nil, start, 4), 0o600),
		os.WriteFile(at(labels[1], "data/backup_label"), fmt.Appendf(nil, start+"INCREMENTAL FROM LSN: 0/4000028\nINCREMENTAL FROM TLI: 1\n", 6), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	var refused *ChildError
	if err := r.Delete(context.Background(), labels[0]); !errors.As(err, &refused) || len(refused.Children) != 1 {
		t.Fatalf("a backup.info that was cut off: %v", err)
	}
	// What cannot be read may be a child.
	if err := errors.Join(os.Remove(at(labels[1], "data/backup_label")), os.Mkdir(at(labels[1], "data/backup_label"), 0o700)); err != nil {
		t.Fatal(err)
	}
	var unread *FileError
	if err := r.Delete(context.Background(), labels[0]); !errors.As(err, &unread) {
		t.Errorf("a backup_label that cannot be read: %v", err)
	}
	if err := r.Delete(context.Background(), labels[0], labels[1], labels[1]); err != nil {
		t.Errorf("together: %v", err)
	}
	if left, err := r.labels(context.Background()); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

// Of two backups that were taken while the clocks went back the parent may have the later label.
func TestChildrenAreDeletedFirst(t *testing.T) {
	t.Parallel()
	r, labels := chain(t, 4)
	turned := strings.NewReplacer(string(labels[1]), string(labels[2]), string(labels[2]), string(labels[1]))
	for _, l := range labels[1:] {
		path := filepath.Join(r.dir, backupDir(l), infoName)
		b, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(path, []byte(turned.Replace(string(b))), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	swap := filepath.Join(r.dir, "tmp", "swap")
	one, two := filepath.Join(r.dir, backupDir(labels[1])), filepath.Join(r.dir, backupDir(labels[2]))
	if err := errors.Join(os.MkdirAll(filepath.Dir(swap), 0o700), os.Rename(one, swap), os.Rename(two, one), os.Rename(swap, two)); err != nil {
		t.Fatal(err)
	}
	// The chain is now 1, 3, 2, 4. At each step all that are left have their parents.
	var order []string
	r.op = func(kind, name string) error {
		if kind == "rename" {
			order = append(order, filepath.Base(name))
		}
		return nil
	}
	if err := r.Delete(context.Background(), labels[2], labels[1]); !errors.As(err, new(*ChildError)) || order != nil {
		t.Fatalf("without the newest: %v; deleted %v", err, order)
	}
	if err := r.Delete(context.Background(), labels...); err != nil {
		t.Fatal(err)
	}
	if want := words([]repo.Label{labels[3], labels[1], labels[2], labels[0]}); strings.Join(order, " ") != want {
		t.Errorf("deleted %v, want %s", order, want)
	}
}

func TestCommandNamesEverything(t *testing.T) {
	t.Parallel()
	kept := repo.Backup{Label: "20260103000000", Keep: true, Summary: repo.Summary{Stored: math.MaxInt64}}
	e := &ChildError{
		Server: "primary", Gone: []repo.Backup{{Label: "20260102000000", Summary: repo.Summary{Stored: math.MaxInt64}}, {Label: "20260101000000"}},
		Children: []repo.Backup{kept}, Also: []repo.Label{"20260104000000"},
	}
	want := "pgmoneta-cli delete --force primary 20260101000000 20260102000000 20260103000000 20260104000000"
	if got := e.Command(); got != want || !strings.Contains(e.Error(), "needs one of 20260102000000, 20260101000000: ") {
		t.Errorf("%q of %q", got, e)
	}
	if n := e.mebibytes(); n < 1<<42 {
		t.Errorf("%d MiB", n)
	}
	e.Children[0].Keep = false
	if strings.Contains(e.Command(), "--force") {
		t.Error(e.Command())
	}
	if e.Force = true; !strings.Contains(e.Command(), "--force") {
		t.Error(e.Command())
	}
}

func TestOpenRefusesBlocksThatAreCalledFull(t *testing.T) {
	r := fixture(t)
	const label = "START WAL LOCATION: 0/6000028 (file 000000010000000000000006)\nCHECKPOINT LOCATION: 0/6000060\nINCREMENTAL FROM LSN: 0/4000028\nINCREMENTAL FROM TLI: 1\n"
	if err := os.WriteFile(filepath.Join(r.dir, "backup/20260103000000/data/backup_label"), []byte(label), 0o600); err != nil {
		t.Fatal(err)
	}
	var odd *InfoError
	if _, err := r.Open(context.Background(), "20260103000000"); !errors.As(err, &odd) || odd.Key != "TYPE" {
		t.Errorf("error %v", err)
	}
}

func TestLinksAreFollowedBelowTheRepositoryOnly(t *testing.T) {
	r := fixture(t)
	const from = "backup/20260102000000/data/base/1"
	tests := []struct {
		target, want string
	}{
		{"/srv/primary/backup/20260101000000/data/base/1", "backup/20260101000000/data/base/1"},
		{r.dir + "/backup/20260101000000/data/x", "backup/20260101000000/data/x"},
		{"/a/backup/20200101000000/b/backup/20260101000000/tblspc_x/", "backup/20260101000000/tblspc_x"},
		{"../../../20260101000000/data/base/1", "backup/20260101000000/data/base/1"},
		{"/etc/passwd", ""},
		{"../../../../wal/x", ""},
		{"../../../../../other/backup/20260101000000/data/x", ""},
		{"/srv/backup/20260101000000/backup.info", ""},
		{"/srv/backup/20260101000000/data/../../../x", ""},
		{"/srv/backup/2026/data/x", ""},
	}
	for _, tt := range tests {
		if got, ok := r.translate(from, tt.target); ok != (tt.want != "") || ok && got != tt.want {
			t.Errorf("translate(%q) = %q, %v, want %q", tt.target, got, ok, tt.want)
		}
	}
}

func TestHistoriesOfEitherCaseLoseTheirNUL(t *testing.T) {
	r := fixture(t)
	if err := os.MkdirAll(filepath.Join(r.dir, "wal"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, tli := range map[string]pg.Timeline{"0000000a.history": 10, "0000000B.history": 11} {
		if err := os.WriteFile(filepath.Join(r.dir, "wal", name), []byte("1\t0/3000000\tno reason\n\x00"), 0o600); err != nil {
			t.Fatal(err)
		}
		if b, err := r.History(context.Background(), tli); err != nil || string(b) != "1\t0/3000000\tno reason\n" {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	if w, err := r.WAL(context.Background()); err != nil || len(w.Histories) != 2 {
		t.Errorf("%+v, %v", w, err)
	}
}
