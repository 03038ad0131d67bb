// Package compat writes repositories as C pgmoneta 0.22 leaves them, from the data
// directories of real servers, to prove that they can be read.
//
// What it writes does not come from the code under test: the server's own tools make the data,
// gzip, zstd and bzip2 of the system compress, and the framing of LZ4, the sealed format and
// the lists are written out here byte by byte.
package compat

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

// A Repository is the directory of one server.
type Repository struct {
	Base   string // base_dir
	Server string

	passphrase string
	salt       []byte
	secret     func() []byte // what both give
}

// New begins a repository below base, which exists.
func New(t testing.TB, base, server string) *Repository {
	t.Helper()
	r := &Repository{Base: base, Server: server, passphrase: "correct horse battery staple", salt: random(t, 16)}
	r.secret = sync.OnceValue(func() []byte {
		m, err := pbkdf2.Key(sha256.New, r.passphrase, r.salt, 600000, 64)
		must(t, err)
		return m
	})
	for _, dir := range []string{"backup", "wal"} {
		must(t, os.MkdirAll(r.Path(dir), 0o700))
	}
	return r
}

// Path returns the path of a name of the repository.
func (r *Repository) Path(name string) string { return filepath.Join(r.Base, r.Server, name) }

// MasterKey returns the content of the file master.key.
func (r *Repository) MasterKey() []byte {
	encode := base64.StdEncoding.EncodeToString
	return []byte(encode([]byte(r.passphrase)) + "\n" + encode(r.salt) + "\n")
}

// A Storage says how files are stored.
type Storage struct {
	Codec string // "", gz, zstd, lz4 or bz2
	Bits  int    // of the AES key, 0 for none
}

func (s Storage) String() string {
	word := s.Codec
	if word == "" {
		word = "none"
	}
	return fmt.Sprintf("%s-%d", word, s.Bits)
}

func (s Storage) suffix() string {
	out := ""
	if s.Codec != "" {
		out = "." + s.Codec
	}
	if s.Bits > 0 {
		out += ".aes"
	}
	return out
}

func (s Storage) codes() (compression, encryption int) {
	return map[string]int{"": 0, "gz": 17, "zstd": 18, "lz4": 19, "bz2": 20}[s.Codec], map[int]int{0: 0, 256: 1, 192: 2, 128: 3}[s.Bits]
}

// A Manifest is PostgreSQL's backup_manifest.
type Manifest struct {
	Files []struct {
		Path     string `json:"Path"`
		Checksum string `json:"Checksum"`
	} `json:"Files"`
	Ranges []struct {
		Timeline int    `json:"Timeline"`
		Start    string `json:"Start-LSN"`
		End      string `json:"End-LSN"`
	} `json:"WAL-Ranges"`
}

// Backup takes a backup of a server. With a parent it is an incremental one, which needs
// PostgreSQL 17.
func (r *Repository) Backup(t testing.TB, s *pgtest.Server, label, parent string, how Storage) {
	t.Helper()
	dir := r.Path("backup/" + label)
	must(t, os.MkdirAll(dir, 0o700))
	pgtest.Own(t, r.Base)
	data := filepath.Join(dir, "data")
	args := []string{"-d", s.ReplDSN(), "-D", data, "-X", "fetch", "-c", "fast", "--manifest-checksums=SHA512", "-l", "pgmoneta_" + label}
	spaces := tablespaces(t, s)
	for _, ts := range spaces {
		args = append(args, "-T", ts.location+"="+filepath.Join(dir, "tblspc_"+ts.name))
	}
	if parent != "" {
		args = append(args, "--incremental="+r.Path("backup/"+parent+"/data/backup_manifest"))
	}
	pgtest.RunTool(t, s, pgtest.Tool(t, s.Major, "pg_basebackup"), args...)
	for _, ts := range spaces {
		link := filepath.Join(data, "pg_tblspc", ts.oid)
		must(t, os.Remove(link))
		must(t, os.Symlink(filepath.Join(dir, "tblspc_"+ts.name)+"/", link))
	}
	m := readManifest(t, data)
	wal := firstSegment(t, data)
	r.store(t, dir, how)
	r.describe(t, s, label, parent, how, m, wal, spaces)
	r.Sums(t, label)
}

type tablespace struct{ oid, name, location string }

func tablespaces(t testing.TB, s *pgtest.Server) []tablespace {
	var list []tablespace
	text := s.QueryString(t, "SELECT coalesce(string_agg(oid || '|' || spcname || '|' || pg_tablespace_location(oid), E'\\n'), '') FROM pg_tablespace WHERE oid > 2000")
	for line := range strings.Lines(text) {
		f := strings.Split(strings.TrimSpace(line), "|")
		list = append(list, tablespace{f[0], f[1], f[2]})
	}
	return list
}

func readManifest(t testing.TB, data string) Manifest {
	var m Manifest
	b, err := os.ReadFile(filepath.Join(data, "backup_manifest"))
	must(t, err)
	must(t, json.Unmarshal(b, &m))
	return m
}

func firstSegment(t testing.TB, data string) string {
	names, err := filepath.Glob(filepath.Join(data, "pg_wal", "0*"))
	must(t, err)
	slices.Sort(names)
	return filepath.Base(names[0])
}

// store compresses and encrypts the files of a backup, as they lie in data and in tablespaces.
func (r *Repository) store(t testing.TB, dir string, how Storage) {
	var files []string
	walk(t, dir, func(path string) {
		if base := filepath.Base(path); base != "backup_label" && base != "backup_manifest" {
			files = append(files, path)
		}
	})
	salt := random(t, 16) // one for all, as for the files of one archive
	r.encode(t, files, how, func() []byte { return salt })
}

// encode compresses and then encrypts files in place.
func (r *Repository) encode(t testing.TB, files []string, how Storage, salt func() []byte) {
	compress(t, files, how.Codec)
	for _, path := range files {
		if how.Codec != "" {
			path += "." + how.Codec
		}
		if how.Bits == 0 {
			continue
		}
		plain, err := os.ReadFile(path)
		must(t, err)
		must(t, os.WriteFile(path+".aes", r.Seal(t, plain, how.Bits, salt()), 0o600))
		must(t, os.Remove(path))
	}
}

// compress replaces each file by one with the suffix of the codec.
func compress(t testing.TB, files []string, codec string) {
	tools := map[string][]string{
		"gz":   {"gzip", "-9", "-n"},
		"zstd": {"zstd", "-q", "-3", "--rm", "--check"},
		"bz2":  {"bzip2", "-9"},
	}
	switch codec {
	case "":
	case "lz4":
		for i, path := range files {
			plain, err := os.ReadFile(path)
			must(t, err)
			must(t, os.WriteFile(path+".lz4", LZ4(plain, i%2 == 0), 0o600))
			must(t, os.Remove(path))
		}
	default:
		for chunk := range slices.Chunk(files, 500) {
			tool := tools[codec]
			out, err := exec.Command(tool[0], append(tool[1:], chunk...)...).CombinedOutput()
			if err != nil {
				t.Fatalf("%s: %v\n%s", tool[0], err, out)
			}
		}
		if codec == "zstd" {
			for _, path := range files {
				must(t, os.Rename(path+".zst", path+".zstd"))
			}
		}
	}
}

// Seal encrypts in the format of C pgmoneta: salt, nonce, ciphertext, tag.
func (r *Repository) Seal(t testing.TB, plain []byte, bits int, salt []byte) []byte {
	key, err := pbkdf2.Key(sha256.New, string(r.secret()), salt, 1, 80)
	must(t, err)
	block, err := aes.NewCipher(key[:bits/8])
	must(t, err)
	gcm, err := cipher.NewGCM(block)
	must(t, err)
	nonce := random(t, 12)
	return gcm.Seal(slices.Concat(salt, nonce), nonce, plain, nil)
}

// describe writes backup.info and backup.manifest.
func (r *Repository) describe(t testing.TB, s *pgtest.Server, label, parent string, how Storage, m Manifest, wal string, spaces []tablespace) {
	dir := r.Path("backup/" + label)
	compression, encryption := how.codes()
	kind := 0
	if parent != "" {
		kind = 1
	}
	text, err := os.ReadFile(filepath.Join(dir, "data", "backup_label"))
	must(t, err)
	first, last := m.Ranges[0], m.Ranges[0]
	for _, x := range m.Ranges {
		if x.Timeline < first.Timeline {
			first = x
		}
		if x.Timeline > last.Timeline {
			last = x
		}
	}
	var b strings.Builder
	line := func(key string, value any) { fmt.Fprintf(&b, "%s=%v\n", key, value) }
	line("PGMONETA_VERSION", "0.22.0")
	line("STATUS", 1)
	line("LABEL", label)
	line("WAL", wal)
	line("BACKUP", size(t, filepath.Join(dir, "data")))
	line("RESTORE", size(t, filepath.Join(dir, "data")))
	line("BIGGEST_FILE", 16777216)
	line("ELAPSED", "0.8557")
	line("BASEBACKUP_ELAPSED", "0.6146")
	for _, key := range []string{"HASH", "COMPRESSION_ZSTD", "COMPRESSION_GZIP", "COMPRESSION_BZIP2", "COMPRESSION_LZ4", "ENCRYPTION", "LINKING", "MANIFEST", "REMOTE_SSH", "REMOTE_S3", "REMOTE_AZURE"} {
		line(key+"_ELAPSED", "0.0000")
	}
	line("MAJOR_VERSION", s.Major)
	line("MINOR_VERSION", 3)
	line("KEEP", 0)
	line("TABLESPACES", len(spaces))
	line("COMPRESSION", compression)
	line("ENCRYPTION", encryption)
	for i, ts := range spaces {
		line(fmt.Sprintf("TABLESPACE%d", i+1), "tblspc_"+ts.name)
		line(fmt.Sprintf("TABLESPACE_OID%d", i+1), ts.oid)
		line(fmt.Sprintf("TABLESPACE_PATH%d", i+1), ts.location)
	}
	line("START_WALPOS", field(text, "START WAL LOCATION: "))
	line("END_WALPOS", last.End)
	line("CHKPT_WALPOS", field(text, "CHECKPOINT LOCATION: "))
	line("START_TIMELINE", first.Timeline)
	line("END_TIMELINE", last.Timeline)
	line("TYPE", kind)
	line("PARENT", parent)
	line("COMMENTS", "")
	line("EXTRA", "")
	must(t, os.WriteFile(filepath.Join(dir, "backup.info"), []byte(b.String()), 0o600))
	b.Reset()
	for _, f := range m.Files {
		fmt.Fprintf(&b, "%s,%s\n", f.Path, f.Checksum)
	}
	must(t, os.WriteFile(filepath.Join(dir, "backup.manifest"), []byte(b.String()), 0o600))
}

func field(text []byte, key string) string {
	_, rest, _ := strings.Cut(string(text), key)
	value, _, _ := strings.Cut(rest, "\n")
	value, _, _ = strings.Cut(value, " ")
	return value
}

func size(t testing.TB, dir string) (n int64) {
	walk(t, dir, func(path string) {
		info, err := os.Lstat(path)
		must(t, err)
		n += (info.Size() + 4095) / 4096 * 4096
	})
	return n
}

// Sums writes backup.sha512 as the last step of a backup does: every file through its
// links, those of tablespaces twice.
func (r *Repository) Sums(t testing.TB, label string) {
	t.Helper()
	dir := r.Path("backup/" + label)
	var b bytes.Buffer
	var list func(rel string)
	list = func(rel string) {
		entries, err := os.ReadDir(filepath.Join(dir, rel))
		must(t, err)
		for _, e := range entries {
			name := filepath.Join(rel, e.Name())
			info, err := os.Stat(filepath.Join(dir, name))
			must(t, err)
			if info.IsDir() {
				list(name)
				continue
			}
			if name == "backup.sha512" {
				continue
			}
			content, err := os.ReadFile(filepath.Join(dir, name))
			must(t, err)
			fmt.Fprintf(&b, "%x *./%s\n", sha512.Sum512(content), name)
		}
	}
	list(".")
	must(t, os.WriteFile(filepath.Join(dir, "backup.sha512"), b.Bytes(), 0o600))
}

// Link does the step of that name: what did not change since the older backup becomes an absolute
// link to the file there. It returns how many there are.
func (r *Repository) Link(t testing.TB, label, older string, how Storage) int {
	t.Helper()
	sums := map[string]string{}
	for _, f := range readManifest(t, r.Path("backup/"+older+"/data")).Files {
		sums[f.Path] = f.Checksum
	}
	same := map[string]bool{}
	for _, f := range readManifest(t, r.Path("backup/"+label+"/data")).Files {
		same[f.Path] = sums[f.Path] == f.Checksum
	}
	links := 0
	var link func(rel string)
	link = func(rel string) {
		at := r.Path("backup/" + label + "/data")
		entries, err := os.ReadDir(filepath.Join(at, rel))
		must(t, err)
		for _, e := range entries {
			name := filepath.Join(rel, e.Name())
			path := filepath.Join(at, name)
			info, err := os.Stat(path)
			must(t, err)
			if info.IsDir() {
				link(name)
				continue
			}
			target := r.Path("backup/" + older + "/data/" + name)
			plain := strings.TrimSuffix(name, how.suffix())
			special := plain == "global/pg_control" || plain == "postgresql.conf" || plain == "pg_hba.conf"
			_, err = os.Stat(target)
			if known := same[plain] || strings.HasPrefix(plain, "pg_wal/"); err != nil || special || !known || strings.HasPrefix(e.Name(), "INCREMENTAL.") {
				continue
			}
			must(t, os.Remove(path))
			must(t, os.Symlink(target, path))
			links++
		}
	}
	link(".")
	r.Sums(t, label) // what was sealed twice differs
	return links
}

// Archive stores complete segments of a server in wal/, as its stream would have come, and the one
// that is being written as partial.
func (r *Repository) Archive(t testing.TB, s *pgtest.Server, from string, how Storage) []string {
	t.Helper()
	current := s.QueryString(t, "SELECT pg_walfile_name(pg_current_wal_lsn())")
	names, err := filepath.Glob(filepath.Join(s.DataDir, "pg_wal", "0*"))
	must(t, err)
	var files, stored []string
	for _, path := range names {
		name := filepath.Base(path)
		if len(name) != 24 || name < from || name > current {
			continue
		}
		content, err := os.ReadFile(path)
		must(t, err)
		if name == current {
			name += ".partial"
		} else {
			files = append(files, r.Path("wal/"+name))
			stored = append(stored, name)
		}
		must(t, os.WriteFile(r.Path("wal/"+name), content, 0o600))
	}
	r.encode(t, files, how, func() []byte { return random(t, 16) })
	return stored
}

// Histories stores the timeline histories of a server: lower-case names, a NUL at the end.
func (r *Repository) Histories(t testing.TB, s *pgtest.Server) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(s.DataDir, "pg_wal", "*.history"))
	must(t, err)
	for _, path := range names {
		content, err := os.ReadFile(path)
		must(t, err)
		must(t, os.WriteFile(r.Path("wal/"+strings.ToLower(filepath.Base(path))), append(content, 0), 0o600))
	}
}

// Move renames the base directory, so that no absolute link leads anywhere any more.
func (r *Repository) Move(t testing.TB, base string) {
	t.Helper()
	must(t, os.Rename(r.Base, base))
	r.Base = base
}

// LZ4 compresses in the framing of C pgmoneta: blocks of 4096 plain bytes that refer to each
// other, without anything around them. A streaming compressor ends what is empty or full
// buffers of 1 MiB with a block of nothing.
func LZ4(plain []byte, streaming bool) []byte {
	var out []byte
	table := map[uint32]int{}
	for at := 0; at < len(plain); at += 4096 {
		block := lz4Block(plain, at, min(at+4096, len(plain)), table)
		out = append(out, byte(len(block)), byte(len(block)>>8), 0, 0)
		out = append(out, block...)
	}
	if streaming && len(plain)%(1<<20) == 0 {
		out = append(out, 1, 0, 0, 0, 0)
	}
	return out
}

// lz4Block encodes plain[begin:end] with matches of what came before, greedily.
// See the LZ4 block format description.
func lz4Block(plain []byte, begin, end int, table map[uint32]int) []byte {
	var out []byte
	literals := begin
	sequence := func(until, offset, length int) {
		n := until - literals
		token := byte(min(n, 15)) << 4
		if offset > 0 {
			token |= byte(min(length-4, 15))
		}
		out = append(out, token)
		out = lz4Length(out, n)
		out = append(out, plain[literals:until]...)
		if offset > 0 {
			out = append(out, byte(offset), byte(offset>>8))
			out = lz4Length(out, length-4)
		}
	}
	for at := begin; at+12 <= end; {
		key := uint32(plain[at]) | uint32(plain[at+1])<<8 | uint32(plain[at+2])<<16 | uint32(plain[at+3])<<24
		from, ok := table[key]
		table[key] = at
		if !ok || at-from > 0xFFFF {
			at++
			continue
		}
		length := 4
		for at+length < end-5 && plain[from+length] == plain[at+length] {
			length++
		}
		sequence(at, at-from, length)
		at += length
		literals = at
	}
	sequence(end, 0, 0)
	return out
}

func lz4Length(out []byte, n int) []byte {
	if n < 15 {
		return out
	}
	for n -= 15; n >= 255; n -= 255 {
		out = append(out, 255)
	}
	return append(out, byte(n))
}

// walk calls each for every regular file below dir.
func walk(t testing.TB, dir string, each func(path string)) {
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			each(path)
		}
		return err
	}))
}

func random(t testing.TB, n int) []byte {
	b := make([]byte, n)
	_, err := rand.Read(b)
	must(t, err)
	return b
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
