package config

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/logging"
)

// testEnv is the environment of the tests.
func testEnv(name string) (string, bool) {
	value, ok := map[string]string{"HOME": "/home/pg", "EMPTY": ""}[name]
	return value, ok
}

func parse(t *testing.T, text string) *Config {
	t.Helper()
	c, err := ParseBytes("test.conf", []byte(text), testEnv)
	if err != nil {
		t.Fatalf("ParseBytes: %v\nof:\n%s", err, text)
	}
	return c
}

// problemsOf returns the problems of a text that must have some.
func problemsOf(t *testing.T, text string) Errors {
	t.Helper()
	_, err := ParseBytes("test.conf", []byte(text), testEnv)
	var errs Errors
	if !errors.As(err, &errs) {
		t.Fatalf("ParseBytes of %q: error is %v, want Errors", text, err)
	}
	return errs
}

const sample = `# a comment with an é
[pgmoneta]
host = *
unix_socket_dir = /tmp/
base_dir = $HOME/backup
metrics = 5001
compression = server-lz4
compression_level = 99
workers = 2
max_rate = 8589934592
retention = 7,-,-,1
retention_interval = 60
log_type = FILE
log_level = debug2
log_path = '/tmp/pg$moneta #1.log' ; comment
log_rotation_size = 3G
log_rotation_age = d1
log_line_prefix = "%Y;%m"
create_slot = yes
encryption = aes
verification = 1h
storage_engine = local, S3
s3_secret_access_key = hush

[primary]
host = localhost
port = 5432
user = repl
wal_slot = repl
retention = 14
extra = /a b/c , /d

[replica]
host = 10.0.0.2
port = 5433
user = repl
wal_slot = repl_2
follow = primary
workers = 0
max_rate = 10
progress = on
create_slot = no
hot_standby_overrides = /x||/y
`

func TestParseUnderstandsEveryKindOfValue(t *testing.T) {
	t.Parallel()
	c := parse(t, sample)
	m := c.Main
	for _, check := range []struct {
		what      string
		got, want any
	}{
		{"host", m.Host, "*"},
		{"base_dir", m.BaseDir, "/home/pg/backup"},
		{"metrics", m.Metrics, 5001},
		{"compression", m.Compression, Compression{LZ4, true}},
		{"compression_level is clamped to the codec", m.CompressionLevel, 12},
		{"max_rate beyond 32 bits", m.MaxRate, int64(8 << 30)},
		{"retention", m.Retention, Retention{Days: 7, Years: 1}},
		{"retention_interval", m.RetentionInterval, time.Minute},
		{"log_type", m.LogType, LogFile},
		{"log_level", m.LogLevel, logging.LevelTrace},
		{"log_path keeps $ and # in single quotes", m.LogPath, "/tmp/pg$moneta #1.log"},
		{"log_rotation_size beyond 32 bits", m.LogRotationSize, int64(3 << 30)},
		{"log_rotation_age with the unit in front", m.LogRotationAge, 24 * time.Hour},
		{"log_line_prefix keeps a quoted semicolon", m.LogLinePrefix, "%Y;%m"},
		{"create_slot", m.CreateSlot, Yes},
		{"encryption", m.Encryption, AES256},
		{"verification", m.Verification, time.Hour},
		{"storage_engine", m.StorageEngines, StorageLocal | StorageS3},
		{"s3_secret_access_key", m.S3.SecretAccessKey.Reveal(), "hush"},
		{"default blocking_timeout", m.BlockingTimeout, 30 * time.Second},
		{"default ssh key", m.SSH.PrivateKeyFile, "/home/pg/.ssh/id_rsa"},
		{"servers", len(c.Servers), 2},
	} {
		if !reflect.DeepEqual(check.got, check.want) {
			t.Errorf("%s: got %v, want %v", check.what, check.got, check.want)
		}
	}
	if want := []string{"/a b/c", "/d"}; !reflect.DeepEqual(c.Servers[0].Extra, want) {
		t.Errorf("extra: got %q, want %q", c.Servers[0].Extra, want)
	}
	if want := []string{"/x", "", "/y"}; !reflect.DeepEqual(c.Servers[1].HotStandbyOverrides, want) {
		t.Errorf("hot_standby_overrides: got %q, want %q", c.Servers[1].HotStandbyOverrides, want)
	}
}

func TestServerInheritsFromMain(t *testing.T) {
	t.Parallel()
	c := parse(t, sample)
	primary, replica := &c.Servers[0], &c.Servers[1]
	for _, check := range []struct {
		what      string
		got, want any
	}{
		{"retention days of the server, years of main", c.Retention(primary), Retention{Days: 14, Years: 1}},
		{"retention of main", c.Retention(replica).String(), "7,-,-,1"},
		{"workers 0 is not inherited", c.Workers(replica), 0},
		{"max_rate of main", c.MaxRate(primary), int64(8 << 30)},
		{"max_rate of the server", c.MaxRate(replica), int64(10)},
		{"create_slot of main", c.CreateSlot(primary), true},
		{"create_slot no wins", c.CreateSlot(replica), false},
		{"progress of main", c.Progress(primary), false},
		{"progress of the server", c.Progress(replica), true},
		{"s3 secret of main", c.S3(primary).SecretAccessKey.Reveal(), "hush"},
	} {
		if check.got != check.want {
			t.Errorf("%s: got %v, want %v", check.what, check.got, check.want)
		}
	}
}

func TestOtherModesOfEncryptionAreRefused(t *testing.T) {
	t.Parallel()
	for _, word := range []string{"aes-256-cbc", "AES-128-CTR", "aes-192-cbc"} {
		_, err := ParseBytes("pgmoneta.conf", []byte("[pgmoneta]\nencryption = "+word+"\n"), testEnv)
		if size := strings.ToLower(word[:7]); err == nil || !strings.Contains(err.Error(), "AES-GCM only") || !strings.Contains(err.Error(), "say "+size) {
			t.Errorf("%s: %v", word, err)
		}
	}
}

// 77 keys of pgmoneta 0.22, link, and our own: passfile, target, wal_sync, wal_flush_interval, wal_max_age, wal_archive, on_gap, backup_source, cross_check, allow_corrupt, job_nice, wal_shipping_plain, tls_channel_binding, retention_count, retention_min, recovery_window, delete_delay, wal_keep, backup_on_start, schedule, schedule_jitter, hook_before, hook_after, space_low, space_critical and four that begin with rehearse_; keys of both
// sections count once.
func TestAllKeysAreKnown(t *testing.T) {
	t.Parallel()
	names := map[string]bool{}
	for _, n := range append(keyNames(mainKeys()), keyNames(serverKeys())...) {
		names[n] = true
	}
	if got, want := len(names), 77+1+30; got != want {
		t.Errorf("%d different keys, want %d", got, want)
	}
}

func TestEveryValueCanBeReadBack(t *testing.T) {
	t.Parallel()
	c := parse(t, sample)
	for _, k := range mainKeys() {
		copied := c.Main
		if err := k.set(&copied, k.get(&c.Main)); err != nil {
			t.Errorf("set(%s, %q): %v", k.name, k.get(&c.Main), err)
		}
		if !reflect.DeepEqual(copied, c.Main) {
			t.Errorf("%s changed when %q was set again", k.name, k.get(&c.Main))
		}
	}
	for _, k := range serverKeys() {
		copied := c.Servers[1]
		if err := k.set(&copied, k.get(&c.Servers[1])); err != nil {
			t.Errorf("set(%s, %q): %v", k.name, k.get(&c.Servers[1]), err)
		}
		if !reflect.DeepEqual(copied, c.Servers[1]) {
			t.Errorf("%s changed when %q was set again", k.name, k.get(&c.Servers[1]))
		}
	}
}

func TestSectionsSurviveJSON(t *testing.T) {
	t.Parallel()
	c := parse(t, sample)
	data, err := json.Marshal(struct {
		Main    Main
		Servers []Server
	}{c.Main, c.Servers})
	if err != nil {
		t.Fatal(err)
	}
	var back struct {
		Main    Main
		Servers []Server
	}
	if err := json.Unmarshal(data, &back); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(back.Main, c.Main) || !reflect.DeepEqual(back.Servers, c.Servers) {
		t.Errorf("after JSON: got %+v %+v", back.Main, back.Servers)
	}
}

func TestProblemsNameLineAndRemedy(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, text string
		line       int
		key        string
		message    string // a part of it
	}{
		{"misspelt key", "[pgmoneta]\nretenton = 7\n", 2, "retenton", "did you mean retention?"},
		{"nothing near", "[pgmoneta]\nzzzzzzzzzzzz = 7\n", 2, "zzzzzzzzzzzz", "unknown key"},
		{"main key in a server", "[a]\nbase_dir = /x\n", 2, "base_dir", "belongs into the section [pgmoneta]"},
		{"repeated key", "[a]\nhost = x\n\nhost = y\n", 4, "host", "first in line 2"},
		{"repeated server", "[a]\nhost = x\n[a]\n", 3, "", "first in line 1"},
		{"before a section", "host = x\n", 1, "", "before the first section"},
		{"no equal sign", "[pgmoneta]\nfoo bar\n", 2, "", "key = value"},
		{"known key without equal sign", "[pgmoneta]\nhost localhost\n", 2, "host", "equal sign"},
		{"unclosed header", "[pgmoneta\n", 1, "", "closing bracket"},
		{"text after the header", "[pgmoneta] host = x\n", 1, "", "after the section header"},
		{"unknown word", "[pgmoneta]\ncompression = zip\n", 2, "compression", "none, gzip"},
		{"unknown log level", "[pgmoneta]\nlog_level = loud\n", 2, "log_level", "fatal, error, warn"},
		{"port", "[pgmoneta]\nmetrics = 65536\n", 2, "metrics", "0 to 65535"},
		{"number", "[pgmoneta]\nworkers = many\n", 2, "workers", "whole number"},
		{"rate with a unit", "[pgmoneta]\nmax_rate = 50M\n", 2, "max_rate", "without a unit, here 52428800"},
		{"rate", "[pgmoneta]\nmax_rate = fast\n", 2, "max_rate", "not a whole number"},
		{"number beyond 32 bits", "[pgmoneta]\nworkers = 2147483648\n", 2, "workers", "out of range"},
		{"time", "[pgmoneta]\nverification = 5 m\n", 2, "verification", "30s or 1d"},
		{"time too large", "[pgmoneta]\nverification = 99999999999999w\n", 2, "verification", "too large"},
		{"size", "[pgmoneta]\nlog_rotation_size = 10x\n", 2, "log_rotation_size", "64K or 2GB"},
		{"retention", "[pgmoneta]\nretention = 1,2,3,4,5\n", 2, "retention", "days,weeks,months,years"},
		{"unset variable", "[pgmoneta]\nbase_dir = $NOPE/x\n", 2, "base_dir", "NOPE is not set"},
		{"braces", "[pgmoneta]\nbase_dir = ${HOME}/x\n", 2, "base_dir", "variable name"},
		{"backslash at the end", "[pgmoneta]\nbase_dir = /x\\\n", 2, "base_dir", "backslash"},
		{"open quote", "[pgmoneta]\nbase_dir = \"/x\n", 2, "base_dir", "not closed"},
		{"invalid UTF-8", "[pgmoneta]\nhost = \xff\n", 2, "", "UTF-8"},
		{"control character", "[pgmoneta]\nhost = \x00\n", 2, "", "control character"},
		{"storage engine", "[pgmoneta]\nstorage_engine = s4\n", 2, "storage_engine", "local, ssh, s3, azure"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := problemsOf(t, tt.text)[0]
			if p.File != "test.conf" || p.Line != tt.line || p.Key != tt.key || !strings.Contains(p.Message, tt.message) {
				t.Errorf("problem is %+v, want line %d, key %q, message with %q", p, tt.line, tt.key, tt.message)
			}
		})
	}
}

func TestAllProblemsAreReportedAtOnce(t *testing.T) {
	t.Parallel()
	errs := problemsOf(t, "[pgmoneta]\nfoo = 1\nmetrics = x\n[a]\nport = y\n")
	if len(errs) != 3 {
		t.Errorf("%d problems, want 3:\n%v", len(errs), errs)
	}
	var p Problem
	if !errors.As(error(errs), &p) || p.Key != "foo" {
		t.Errorf("errors.As found %+v, want the first problem", p)
	}
	if got, want := errs[1].Error(), "test.conf:3: [pgmoneta] metrics = x: not a whole number"; got != want {
		t.Errorf("message is %q, want %q", got, want)
	}
}

func TestProblemOfMisspeltSecretDoesNotShowIt(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"[pgmoneta]\ns3_secret_acess_key = hush\n",
		"[a]\nazure_shared_key = hush\n",
		"[pgmoneta]\ns3_secret_access_key = x\ns3_secret_access_key = hush\n",
	} {
		if errs := problemsOf(t, text); strings.Contains(errs.Error(), "hush") {
			t.Errorf("message shows the secret: %v", errs)
		}
	}
}

func TestServerKeyInMainSectionIsIgnoredWithWarning(t *testing.T) {
	t.Parallel()
	c := parse(t, "[a]\nhost = x\n[pgmoneta]\nuser = leak\nport = 1\n")
	if c.Servers[0].User != "" || len(c.Servers[0].Ports) != 0 || c.Servers[0].Name != "a" {
		t.Errorf("the server took values of the main section: %+v", c.Servers[0])
	}
	if len(c.Warnings) != 2 || c.Warnings[0].Line != 4 {
		t.Errorf("warnings are %v, want two", c.Warnings)
	}
}

func TestCommentsAndQuotes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ line, want string }{
		{"a = b # c", "a = b"},
		{"a = b ; c", "a = b"},
		{`a = "b # c" # d`, `a = "b # c"`},
		{`a = 'b;c'`, `a = 'b;c'`},
		{`a = it's # not that's all`, `a = it's`},
		{`a = "open # comment`, `a = "open`},
		{"  # only", ""},
		{"\ta\r", "a"},
	} {
		if got := cutComment(tt.line); got != tt.want {
			t.Errorf("cutComment(%q) = %q, want %q", tt.line, got, tt.want)
		}
	}
}

func TestPathValues(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ line, want string }{
		{"base_dir = /x", "/x"},
		{"base_dir\t=\t/x", "/x"},
		{"base_dir /x", "/x"},
		{"base_dir=/a=b", "/a=b"},
		{"base_dir /a=b", "/a=b"},
		{`base_dir = "/a b"/c`, "/a b/c"},
		{`base_dir = "$HOME"/c`, "/home/pg/c"},
		{`base_dir = '$HOME'/c`, "$HOME/c"},
		{`base_dir = /a\ b\$c`, "/a b$c"},
		{`base_dir = $EMPTY/x`, "/x"},
		{"base_dir =", ""},
		{`base_dir = ""`, ""},
	} {
		if got := parse(t, "[pgmoneta]\n"+tt.line+"\n").Main.BaseDir; got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.line, got, tt.want)
		}
	}
}

func TestLongValuesAreKept(t *testing.T) {
	t.Parallel()
	path := "/" + strings.Repeat("x", 8000)
	c := parse(t, "[a]\nextra = "+path+","+path+"\n")
	if len(c.Servers[0].Extra) != 2 || c.Servers[0].Extra[1] != path {
		t.Errorf("extra has %d entries", len(c.Servers[0].Extra))
	}
}

func TestRetentionGrammar(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ text, want string }{
		{"7", "7,-,-,-"},
		{"7,-,-,-", "7,-,-,-"},
		{"7,x,X,2", "7,-,-,2"},
		{"7,0,3", "7,-,3,-"},
		{"7, ,3", "7,-,3,-"},
		{"7,,1", "7,1,-,-"},
		{"", "-,-,-,-"},
	} {
		got, err := parseRetention(tt.text)
		if err != nil || got.String() != tt.want {
			t.Errorf("parseRetention(%q) = %s, %v, want %s", tt.text, got, err, tt.want)
		}
	}
}

func TestCompressionCodes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		word string
		code int
		show string
	}{
		{"none", 0, "none"}, {"gzip", 17, "gzip"}, {"client-zstd", 18, "zstd"}, {"LZ4", 19, "lz4"}, {"bz2", 20, "bz2"}, {"bzip2", 20, "bz2"},
		{"server-gzip", 33, "server-gzip"}, {"server-zstd", 34, "server-zstd"}, {"server-lz4", 35, "server-lz4"},
	} {
		c, err := parseWord(tt.word, compressionWords)
		if err != nil || c.Code() != tt.code || c.String() != tt.show {
			t.Errorf("%s: code %d, shown as %s, error %v; want %d, %s", tt.word, c.Code(), c, err, tt.code, tt.show)
		}
		if back, err := CompressionFromCode(tt.code); err != nil || back != c {
			t.Errorf("CompressionFromCode(%d) = %v, %v, want %v", tt.code, back, err, c)
		}
	}
	if _, err := CompressionFromCode(36); err == nil {
		t.Error("CompressionFromCode(36) accepted server-side bzip2")
	}
}

func TestParseReportsFileThatCannotBeRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, path := range []string{dir, filepath.Join(dir, "missing")} {
		var fileErr *FileError
		if _, err := Parse(path); !errors.As(err, &fileErr) || !strings.Contains(err.Error(), "not found or not a regular file") {
			t.Errorf("Parse(%s): error is %v, want a FileError", path, err)
		}
	}
}

func TestLoadReportsSyntaxAndMeaningTogether(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "pgmoneta.conf")
	if err := os.WriteFile(path, []byte("[pgmoneta]\nhost = x\nmetrics = y\n[a]\nport = 0x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Load(path)
	var errs Errors
	if !errors.As(err, &errs) {
		t.Fatalf("Load: %v", err)
	}
	var keys []string
	for _, p := range errs {
		keys = append(keys, p.Section+"."+p.Key)
	}
	want := "pgmoneta.metrics a.port pgmoneta.unix_socket_dir pgmoneta.base_dir a.host a.user"
	if got := strings.Join(keys, " "); got != want {
		t.Errorf("problems of %s, want %s", got, want)
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		sample, "", "[", "[]", "[pgmoneta]\n=\n", "[pgmoneta]\nbase_dir", "[a]\nport=1\n[a]", "[pgmoneta]\nlog_path='$", "\xef\xbb\xbf[pgmoneta]\r\nhost = x\r\n",
		"[pgmoneta]\nretention = ,,,\n", "[pgmoneta]\nlog_rotation_age = m\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ParseBytes("fuzz", data, testEnv)
		if err != nil {
			var errs Errors
			if !errors.As(err, &errs) || len(errs) == 0 || c != nil {
				t.Fatalf("error is %T %v with config %v", err, err, c)
			}
			for _, p := range errs {
				if p.Message == "" || strings.ContainsAny(p.Error(), "\n\x00") {
					t.Fatalf("bad message %q", p.Error())
				}
			}
			return
		}
		_ = c.problems()
		if changes := Changes(c, Apply(c, c)); len(changes) != 0 {
			t.Fatalf("a configuration differs from itself: %v", changes)
		}
		if _, err := json.Marshal(c.Servers); err != nil {
			t.Fatalf("not JSON: %v", err)
		}
		_, _ = ParseCLIBytes("fuzz", data, testEnv)
	})
}

// The hosts and ports of a server are not where the daemon listens.
func TestCLIReadsOnlyTheMainSectionOfADaemonFile(t *testing.T) {
	t.Parallel()
	text := "[primary]\nhost = a,b\nport = 5432,5433\n[pgmoneta]\nunix_socket_dir = /run/pgmoneta\nhost = *\n"
	c, err := ParseCLIBytes("pgmoneta.conf", []byte(text), func(string) (string, bool) { return "", false })
	if err != nil || c.UnixSocketDir != "/run/pgmoneta" || c.Port != 0 || c.Host != "*" {
		t.Errorf("ParseCLIBytes = %+v, %v", c, err)
	}
}
