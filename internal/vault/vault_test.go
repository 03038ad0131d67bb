package vault

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Files written by C pgmoneta 0.22, with the values an independent decoder found in them.
const (
	masterFile = "bWFzdGVya2V5MTIz\nLf+lfhFcnzFBB2aM0ULzsA==\n"
	derivedHex = "705abc316f86520567d855104f505c707525f202ce2bbbf71c25f59e6cf288a31c97ad19599c75584515250187b6572bbbb467e34d24c667881811c86454985f"
	userLine   = "repl:0MRVTT2SSacdvkdZtoskLIPnCFwMRoRUhxaRN/E9s6Mmqzum3EM+YLhOZrHXeoLQRyCXl/w=\n"
	objectSalt = "d0c4554d3d9249a71dbe4759b68b242c"
	objectKey  = "7ba116c3f6aed2d85d8f7b728841d749c2addc882bf13147e69bfbac497de9cf"
)

// testKey derives the key of the test vector only once for all tests.
var testKey = sync.OnceValue(func() *MasterKey {
	key, err := ParseMasterKey([]byte(masterFile))
	if err != nil {
		panic(err)
	}
	return key
})

func TestDerivationMatchesC(t *testing.T) {
	t.Parallel()
	secret, err := testKey().MasterSecret()
	if err != nil || hex.EncodeToString(secret) != derivedHex {
		t.Errorf("master secret is %x, %v, want %s", secret, err, derivedHex)
	}
	salt, err := hex.DecodeString(objectSalt)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []KeySize{AES256, AES192, AES128} {
		key, err := testKey().ObjectKey(salt, size)
		if want := objectKey[:2*int(size)]; err != nil || hex.EncodeToString(key) != want {
			t.Errorf("key of %d bytes is %x, %v, want %s", size, key, err, want)
		}
	}
}

func TestUsersFileOfC(t *testing.T) {
	t.Parallel()
	users, err := ParseUsers("users", []byte("# comment\n\n"+userLine+userLine), testKey())
	if err != nil {
		t.Fatal(err)
	}
	password, ok := users.Lookup("repl")
	if !ok || password.Reveal() != "secretpwd" || !slices.Equal(users.Names(), []string{"repl"}) {
		t.Errorf("users are %v, password found %t", users.Names(), ok)
	}
	if users.Has("other") {
		t.Error("an unknown user was found")
	}
}

func TestObjectRoundTripAndDamage(t *testing.T) {
	t.Parallel()
	for _, size := range []KeySize{AES256, AES192, AES128} {
		for _, text := range []string{"", "x", strings.Repeat("long", 10000)} {
			object, err := testKey().Seal([]byte(text), size)
			if err != nil || len(object) != len(text)+Overhead {
				t.Fatalf("Seal: %d bytes, %v", len(object), err)
			}
			if back, err := testKey().Open(object, size); err != nil || string(back) != text {
				t.Errorf("Open of %d bytes: %d bytes, %v", len(text), len(back), err)
			}
		}
	}
	object, err := testKey().Seal([]byte("text"), AES256)
	if err != nil {
		t.Fatal(err)
	}
	for i := range object {
		damaged := slices.Clone(object)
		damaged[i] ^= 1
		if _, err := testKey().Open(damaged, AES256); !errors.Is(err, ErrSealed) {
			t.Errorf("Open with byte %d flipped: %v, want ErrSealed", i, err)
		}
		if _, err := testKey().Open(object[:i], AES256); !errors.Is(err, ErrSealed) {
			t.Errorf("Open of %d bytes: %v, want ErrSealed", i, err)
		}
	}
	if _, err := testKey().Open(object, AES128); !errors.Is(err, ErrSealed) {
		t.Errorf("Open with another key size: %v, want ErrSealed", err)
	}
	if _, err := testKey().Open(object, 17); err == nil {
		t.Error("Open accepted a key size of 17")
	}
}

func TestMasterKeyTravelsToAWorker(t *testing.T) {
	t.Parallel()
	wire, err := testKey().Wire()
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(wire)
	if err != nil {
		t.Fatal(err)
	}
	var back MasterWire
	if err := json.Unmarshal(data, &back); err != nil {
		t.Fatal(err)
	}
	key, err := back.Key()
	if err != nil {
		t.Fatal(err)
	}
	users, err := ParseUsers("users", []byte(userLine), key)
	if err != nil || !users.Has("repl") {
		t.Errorf("with the received key: %v", err)
	}
	if _, err := (MasterWire{}).Key(); err == nil {
		t.Error("an empty message gave a key")
	}
}

func TestSecretNeverShows(t *testing.T) {
	t.Parallel()
	type inner struct{ hidden Secret }
	s := NewSecret("hush")
	values := []any{s, &s, s.Wire(), inner{s}, &inner{s}, []Secret{s}, map[string]any{"k": s}, struct {
		Shown SecretWire
		In    inner
	}{s.Wire(), inner{s}}, testKey(), struct{ K *MasterKey }{testKey()}}
	for _, v := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			text := fmt.Sprintf(verb, v)
			for _, bad := range []string{"hush", hex.EncodeToString([]byte("hush")), "masterkey123"} {
				if strings.Contains(text, bad) {
					t.Errorf("%s of %T shows it: %s", verb, v, text)
				}
			}
		}
		var b bytes.Buffer
		slog.New(slog.NewTextHandler(&b, nil)).Info("m", "v", v)
		if strings.Contains(b.String(), "hush") {
			t.Errorf("the log shows %T: %s", v, b.String())
		}
	}
	if text, err := s.MarshalText(); err != nil || string(text) != "***" {
		t.Errorf("MarshalText = %s, %v", text, err)
	}
	if data, err := json.Marshal(s); err == nil {
		t.Errorf("a Secret was written as JSON: %s", data)
	}
}

func TestSecretWire(t *testing.T) {
	t.Parallel()
	data, err := json.Marshal(struct{ P SecretWire }{NewSecretWire(`a"é`)})
	if err != nil || string(data) != `{"P":"a\"é"}` {
		t.Errorf("JSON is %s, %v", data, err)
	}
	var back struct{ P SecretWire }
	if err := json.Unmarshal(data, &back); err != nil || back.P.Reveal() != `a"é` {
		t.Errorf("read back %q, %v", back.P.Reveal(), err)
	}
	if _, err := json.Marshal(NewSecretWire("\xff")); err == nil {
		t.Error("text that is not UTF-8 was changed silently")
	}
	if err := json.Unmarshal([]byte(`{"P":123456}`), &back); err == nil || strings.Contains(err.Error(), "1234") {
		t.Errorf("error is %v", err)
	}
	if !NewSecret("a").Equal(NewSecret("a")) || NewSecret("a").Equal(NewSecret("b")) || !NewSecret("").IsZero() {
		t.Error("Equal or IsZero is wrong")
	}
}

// home returns a directory like ~/.pgmoneta, and the path of the master key in it.
func home(t *testing.T) string {
	t.Helper()
	return MasterKeyPath(t.TempDir())
}

func TestCreateMasterKey(t *testing.T) {
	t.Parallel()
	path := home(t)
	if _, err := LoadMasterKey(path); !errors.Is(err, ErrNoMasterKey) {
		t.Errorf("LoadMasterKey before: %v, want ErrNoMasterKey", err)
	}
	if err := CreateMasterKey(path, NewSecret("a long passphrase é")); err != nil {
		t.Fatal(err)
	}
	key, err := LoadMasterKey(path)
	if err != nil || key == nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(data), "\n")
	if len(lines) != 3 || lines[2] != "" || lines[0] != base64.StdEncoding.EncodeToString([]byte("a long passphrase é")) || len(lines[1]) != 24 {
		t.Errorf("file is %q", data)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := CreateMasterKey(path, NewSecret("another one")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second CreateMasterKey: %v, want ErrExist", err)
	}
	if again, _ := os.ReadFile(path); !bytes.Equal(again, data) {
		t.Error("the existing key was changed")
	}
}

func TestRefusedMasterKeyLeavesNothing(t *testing.T) {
	t.Parallel()
	path := home(t)
	for _, bad := range []string{"", "short", strings.Repeat("x", 94), "not utf8 \xff"} {
		if err := CreateMasterKey(path, NewSecret(bad)); err == nil {
			t.Errorf("CreateMasterKey(%q) succeeded", bad)
		}
	}
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 0 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestMasterKeyModesAreChecked(t *testing.T) {
	t.Parallel()
	path := home(t)
	if err := CreateMasterKey(path, NewSecret("passphrase")); err != nil {
		t.Fatal(err)
	}
	var mode *ModeError
	for _, tt := range []struct {
		path      string
		bad, good fs.FileMode
	}{{path, 0o640, 0o600}, {filepath.Dir(path), 0o750, 0o700}} {
		if err := os.Chmod(tt.path, tt.bad); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadMasterKey(path); !errors.As(err, &mode) || mode.Path != tt.path || mode.Want != tt.good {
			t.Errorf("LoadMasterKey with mode %#o: %v, want a ModeError", tt.bad, err)
		}
		if err := os.Chmod(tt.path, tt.good); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := LoadMasterKey(path); err != nil {
		t.Error(err)
	}
}

func TestBadMasterKeyFiles(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ text, message string }{
		{"", "empty"},
		{"\n\n", "empty"},
		{"bWFzdGVya2V5MTIz\n", "2 (key and salt)"},
		{"bWFzdGVya2V5MTIz\nLf+l\n", "16"},
		{"bWFzdGVya2V5MTIz\n!!!\n", "line 2"},
		{"!!!\nLf+lfhFcnzFBB2aM0ULzsA==\n", "line 1"},
		{masterFile + "more\n", "3 lines"},
	} {
		if _, err := ParseMasterKey([]byte(tt.text)); err == nil || !strings.Contains(err.Error(), tt.message) {
			t.Errorf("ParseMasterKey(%q): %v, want %q", tt.text, err, tt.message)
		}
	}
	if _, err := ParseMasterKey([]byte(strings.ReplaceAll(masterFile, "\n", "\r\n"))); err != nil {
		t.Errorf("with CRLF: %v", err)
	}
}

func TestUsersFileEdits(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "users.conf")
	long := NewSecret(strings.Repeat("é", 4000))
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(AddUser(path, testKey(), "first", NewSecret("one")))
	must(AddUser(path, testKey(), "second", long))
	data, err := os.ReadFile(path)
	must(err)
	must(os.WriteFile(path, append([]byte("# keep me\n"), data...), 0o600))
	must(EditUser(path, testKey(), "second", NewSecret("short")))
	must(EditUser(path, testKey(), "first", long))

	users, err := LoadUsers(path, testKey())
	must(err)
	first, _ := users.Lookup("first")
	second, _ := users.Lookup("second")
	if !first.Equal(long) || second.Reveal() != "short" || !slices.Equal(users.Names(), []string{"first", "second"}) {
		t.Errorf("users are %v", users.Names())
	}
	for _, tt := range []struct {
		err  error
		want error
	}{
		{AddUser(path, testKey(), "first", long), fs.ErrExist},
		{EditUser(path, testKey(), "third", long), fs.ErrNotExist},
		{DeleteUser(path, "third"), fs.ErrNotExist},
	} {
		var userErr *UserError
		if !errors.As(tt.err, &userErr) || !errors.Is(tt.err, tt.want) {
			t.Errorf("error is %v, want a UserError of %v", tt.err, tt.want)
		}
	}
	must(DeleteUser(path, "first"))
	names, err := UserNames(path)
	must(err)
	data, err = os.ReadFile(path)
	must(err)
	if !slices.Equal(names, []string{"second"}) || !strings.HasPrefix(string(data), "# keep me\nsecond:") || strings.Count(string(data), "\n") != 2 {
		t.Errorf("after the deletion: %v, %q", names, data)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestUsersAreRefused(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "users.conf")
	for _, user := range []string{"", "a:b", "a#b", "a;b", " a", "a\nb", strings.Repeat("x", 128), "\xff"} {
		if err := AddUser(path, testKey(), user, NewSecret("x")); err == nil {
			t.Errorf("AddUser(%q) succeeded", user)
		}
	}
	for _, password := range []string{"", "a\x00b", "\xff", strings.Repeat("x", 8192)} {
		if err := AddUser(path, testKey(), "u", NewSecret(password)); err == nil {
			t.Errorf("AddUser with a password of %d bytes succeeded", len(password))
		}
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file was written: %v", err)
	}
}

func TestUsersFileIsReplacedThroughASymlink(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	target, link := filepath.Join(dir, "target"), filepath.Join(dir, "link")
	if err := AddUser(target, testKey(), "a", NewSecret("x")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	if err := AddUser(link, testKey(), "b", NewSecret("x")); err != nil {
		t.Fatal(err)
	}
	if names, err := UserNames(target); err != nil || len(names) != 2 {
		t.Errorf("the target has %v, %v", names, err)
	}
}

func TestConcurrentEditsLoseNothing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "users.conf")
	var wg sync.WaitGroup
	const n = 20
	for i := range n {
		wg.Go(func() {
			if err := AddUser(path, testKey(), fmt.Sprintf("user%d", i), NewSecret("x")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if names, err := UserNames(path); err != nil || len(names) != n {
		t.Errorf("%d users, %v, want %d", len(names), err, n)
	}
}

func TestBadUsersLinesAreAllNamedWithoutTheirText(t *testing.T) {
	t.Parallel()
	text := userLine + "nocolonhush\nu:hush\nu2:aHVzaA==\n:x\n"
	_, err := ParseUsers("users.conf", []byte(text), testKey())
	if err == nil {
		t.Fatal("no error")
	}
	for _, line := range []string{"users.conf:2:", "users.conf:3:", "users.conf:4:", "users.conf:5:"} {
		if !strings.Contains(err.Error(), line) {
			t.Errorf("error does not name %s:\n%v", line, err)
		}
	}
	if strings.Contains(err.Error(), "hush") {
		t.Errorf("error shows a line: %v", err)
	}
	other, err := NewMasterKey(NewSecret("another key"), make([]byte, SaltSize))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseUsers("users.conf", []byte(userLine), other); !errors.Is(err, ErrSealed) {
		t.Errorf("with another master key: %v, want ErrSealed", err)
	}
	path := filepath.Join(t.TempDir(), "users.conf")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var lineErr *LineError
	if err := DeleteUser(path, "repl"); !errors.As(err, &lineErr) || lineErr.Line != 2 {
		t.Errorf("DeleteUser: %v, want a LineError of line 2", err)
	}
	if data, _ := os.ReadFile(path); string(data) != text {
		t.Error("the file was changed")
	}
}

const passfile = `# comment
db1:5432:*:repl:first
db1:*:replication:repl:second
*:5433:*:a\:b:c\\d\:e
localhost:5432:*:local:sock
::1:5432:*:repl:x
`

func TestPassfile(t *testing.T) {
	t.Parallel()
	good := passfile[:strings.Index(passfile, "::1")]
	p, err := ParsePassfile("pgpass", []byte(good))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		host     string
		port     int
		database string
		user     string
		want     string
	}{
		{"db1", 5432, "replication", "repl", "first"},
		{"db1", 5440, "replication", "repl", "second"},
		{"db1", 5440, "postgres", "repl", ""},
		{"any", 5433, "postgres", "a:b", `c\d:e`},
		{"any", 5432, "replication", "repl", ""},
		{"/run/postgresql", 5432, "replication", "local", "sock"},
		{"db1", 5432, "replication", "*", ""},
	} {
		got, ok := p.Lookup(tt.host, tt.port, tt.database, tt.user)
		if got.Reveal() != tt.want || ok != (tt.want != "") {
			t.Errorf("Lookup(%s, %d, %s, %s) = %q, %t, want %q", tt.host, tt.port, tt.database, tt.user, got.Reveal(), ok, tt.want)
		}
	}
	var lineErr *LineError
	if _, err := ParsePassfile("pgpass", []byte(passfile)); !errors.As(err, &lineErr) || lineErr.Line != 6 {
		t.Errorf("ParsePassfile with an unescaped colon: %v, want a LineError of line 6", err)
	}
}

func TestPassfileModeIsChecked(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "pgpass")
	if err := os.WriteFile(path, []byte("*:*:*:*:x\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	var mode *ModeError
	if _, err := LoadPassfile(path); !errors.As(err, &mode) || !strings.Contains(err.Error(), "chmod 0600 "+path) {
		t.Errorf("LoadPassfile: %v, want a ModeError with the remedy", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := LoadPassfile(path)
	if err != nil {
		t.Fatal(err)
	}
	if password, ok := p.Lookup("h", 1, "d", "u"); !ok || password.Reveal() != "x" {
		t.Error("the line of wildcards does not match")
	}
	if _, err := LoadPassfile(path + ".missing"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("LoadPassfile of nothing: %v", err)
	}
}

func FuzzParseUsers(f *testing.F) {
	for _, seed := range []string{userLine, "", "a:", ":", "a:b:c", "#", "a:!!!\n\n", "\xff:x"} {
		f.Add([]byte(seed))
	}
	key := testKey()
	f.Fuzz(func(t *testing.T, data []byte) {
		users, err := ParseUsers("fuzz", data, key)
		if (err == nil) == (users == nil) {
			t.Fatalf("users %v with error %v", users, err)
		}
	})
}

func FuzzParsePassfile(f *testing.F) {
	for _, seed := range []string{passfile, "", ":::::", `\:\:\::`, "*:*:*:*:\\", "a\r\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := ParsePassfile("fuzz", data)
		if err != nil {
			return
		}
		for _, e := range p.entries {
			if e.password.IsZero() {
				t.Fatal("an entry without password")
			}
		}
		p.Lookup("host", 5432, "replication", "user")
	})
}

func FuzzParseMasterKey(f *testing.F) {
	f.Add([]byte(masterFile))
	f.Add([]byte("\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _ = ParseMasterKey(data)
	})
}

func BenchmarkObject(b *testing.B) {
	text := make([]byte, 1<<20)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		object, err := testKey().Seal(text, AES256)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := testKey().Open(object, AES256); err != nil {
			b.Fatal(err)
		}
	}
}
