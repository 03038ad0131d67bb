package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// valid returns a configuration text that passes validation, with its directories.
func valid(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	return "[pgmoneta]\nhost = localhost\nunix_socket_dir = " + dir + "\nbase_dir = " + dir + "/new\n" +
		"[primary]\nhost = localhost\nport = 5432\nuser = repl\nwal_slot = repl\n"
}

func TestValidateAcceptsMinimalFile(t *testing.T) {
	t.Parallel()
	if err := parse(t, valid(t)).Validate(); err != nil {
		t.Errorf("Validate: %v", err)
	}
}

func TestValidateReportsEveryMissingKey(t *testing.T) {
	t.Parallel()
	err := parse(t, "[pgmoneta]\n[a]\n").Validate()
	var errs Errors
	if !errors.As(err, &errs) {
		t.Fatalf("Validate: %v", err)
	}
	// host, unix_socket_dir, base_dir; host, port, user
	if len(errs) != 6 || errs[3].Line != 2 {
		t.Errorf("%d problems, want 6, those of the server with its line:\n%v", len(errs), err)
	}
}

func TestValidateRefuses(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	replace := func(old, new string) func(string) string {
		return func(s string) string { return strings.Replace(s, old, new, 1) }
	}
	for _, tt := range []struct {
		name    string
		edit    func(string) string
		message string
	}{
		{"reserved name all", replace("[primary]", "[all]"), "reserved"},
		{"parent directory as name", replace("[primary]", "[../x]"), "directory below base_dir"},
		{"slash in a name", replace("[primary]", "[a/b]"), "slashes"},
		{"empty name", replace("[primary]", "[]"), "needs a name"},
		{"blank at the end of a name", replace("[primary]", "[a ]"), "blank"},
		{"long name", replace("[primary]", "["+strings.Repeat("n", 128)+"]"), "127"},
		{"base_dir is a file", func(s string) string {
			return strings.Replace(s, "base_dir = ", "base_dir = "+file+" # ", 1)
		}, "not a directory"},
		{"unix_socket_dir is missing", replace("unix_socket_dir = ", "unix_socket_dir = /nonexistent"), "no such file"},
		{"retention 0", replace("[primary]", "retention = 0\n[primary]"), "at least 1"},
		{"13 months with years", replace("[primary]", "retention = 7,4,13,1\n[primary]"), "invalid month"},
		{"server retention with too many weeks", replace("host = localhost\nport", "retention = 7,5,2\nhost = localhost\nport"), "invalid week"},
		{"retention interval", replace("[primary]", "retention_interval = 0\n[primary]"), "interval"},
		{"same port twice", replace("[primary]", "metrics = 5001\nmanagement = 5001\n[primary]"), "same port"},
		{"follow of nobody", replace("wal_slot", "follow = nobody\nwal_slot"), "another server"},
		{"follow of itself", replace("wal_slot", "follow = primary\nwal_slot"), "another server"},
		{"ports of some hosts", replace("port = 5432", "port = 5432,5433,5434"), "one for each"},
		{"slot name", replace("wal_slot = repl", "wal_slot = Repl"), "slot names"},
		{"ssh without base directory", replace("[primary]", "storage_engine = ssh\n[primary]"), "required"},
		{"no servers", func(s string) string { return s[:strings.Index(s, "[primary]")] }, "no servers"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err := parse(t, tt.edit(valid(t))).Validate()
			if err == nil || !strings.Contains(err.Error(), tt.message) {
				t.Errorf("Validate: %v, want a message with %q", err, tt.message)
			}
		})
	}
}

func TestValidateUsers(t *testing.T) {
	t.Parallel()
	nobody := func(string) bool { return false }
	c := parse(t, valid(t))
	err := c.ValidateUsers(nobody)
	if err == nil || !strings.Contains(err.Error(), "user = repl") {
		t.Errorf("ValidateUsers with an unknown user: %v", err)
	}
	c = parse(t, valid(t)+"passfile = /x\n")
	if err := c.ValidateUsers(nobody); err != nil {
		t.Errorf("ValidateUsers with a password file: %v", err)
	}
}

func TestReloadAppliesOnlyWhatItMay(t *testing.T) {
	t.Parallel()
	text := valid(t)
	old := parse(t, text)
	changed := strings.Replace(text, "[primary]\nhost = localhost", "log_level = debug\nencryption = aes\n[primary]\nhost = other\nworkers = 3", 1)
	fresh := parse(t, changed+"[new]\nhost = x\nport = 1\nuser = u\nwal_slot = s\n")
	var restart, worker, live []string
	for _, c := range Changes(old, fresh) {
		switch {
		case c.Restart:
			restart = append(restart, c.Section+"."+c.Key)
		case c.Worker:
			worker = append(worker, c.Section+"."+c.Key)
		default:
			live = append(live, c.Section+"."+c.Key)
		}
	}
	if got, want := strings.Join(restart, " "), "pgmoneta.encryption"; got != want {
		t.Errorf("changes that need a restart: %s, want %s", got, want)
	}
	if got, want := strings.Join(live, " "), "pgmoneta.log_level primary.workers new."; got != want {
		t.Errorf("changes that apply: %s, want %s", got, want)
	}
	if got, want := strings.Join(worker, " "), "primary.host"; got != want {
		t.Errorf("changes that restart a WAL worker: %s, want %s", got, want)
	}
	merged := Apply(old, fresh)
	if merged.Servers[0].Workers != 3 || merged.Servers[0].Host != "other" || merged.Main.Encryption != EncryptionNone || len(merged.Servers) != 2 {
		t.Errorf("after the reload: %+v", merged)
	}
	if old.Servers[0].Workers != -1 {
		t.Error("the old configuration was changed")
	}
}

func TestWithChangesACopy(t *testing.T) {
	t.Parallel()
	c := parse(t, valid(t))
	changed, err := c.With(MainSection, "log_path", "$HOME/x.log")
	if err != nil {
		t.Fatal(err)
	}
	if changed.Main.LogPath != "/home/pg/x.log" || c.Main.LogPath != "" {
		t.Errorf("log_path is %q in the copy and %q in the original", changed.Main.LogPath, c.Main.LogPath)
	}
	if got, ok := changed.Value("primary", "port"); !ok || got != "5432" {
		t.Errorf("Value(primary, port) = %q, %t", got, ok)
	}
	for _, tt := range []struct{ section, key, value, says string }{
		{MainSection, "base_dir", "/x", "change it in the file"},
		{MainSection, "metrics", "x", "number"},
		{MainSection, "log_levl", "warn", "unknown key; did you mean log_level?"},
		{MainSection, "nonsense", "1", "unknown key"},
		{"nobody", "port", "1", "no such server"},
		{"primary", "extra", "/x", "change it in the file"},
		{"primary", "prot", "1", "unknown key; did you mean port?"},
	} {
		var p Problem
		if got, err := c.With(tt.section, tt.key, tt.value); !errors.As(err, &p) || got != nil || !strings.Contains(p.Message, tt.says) {
			t.Errorf("With(%q, %q, %q) = %v, %v, want a Problem that says %q", tt.section, tt.key, tt.value, got, err, tt.says)
		}
	}
}

func TestCLIFileMayBeADaemonFile(t *testing.T) {
	t.Parallel()
	cli, err := ParseCLIBytes("cli.conf", []byte("unix_socket_dir = /run\nport = -1\noutput = JSON\n"+sample), testEnv)
	if err != nil {
		t.Fatal(err)
	}
	// The sections of servers in the sample are passed over.
	want := CLI{Host: "*", UnixSocketDir: "/tmp/", LogType: LogFile, LogLevel: cli.LogLevel, LogPath: "/tmp/pg$moneta #1.log", LogMode: LogAppend,
		Output: OutputJSON, OutputSet: true, Compression: LZ4, Encryption: AES256}
	if *cli != want {
		t.Errorf("got %+v, want %+v", *cli, want)
	}
}

func TestCLIReportsBadValues(t *testing.T) {
	t.Parallel()
	_, err := ParseCLIBytes("cli.conf", []byte("port = x\nnonsense\noutput = xml\n"), testEnv)
	var errs Errors
	if !errors.As(err, &errs) || len(errs) != 3 || errs[2].Line != 3 {
		t.Errorf("errors are %v, want three", err)
	}
}

func TestLocate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{ConfigName, AdminsName} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	none := func(string) (string, bool) { return "", false }
	inEnv := func(name string) (string, bool) { return dir, name == DirectoryVariable }
	want := Files{Config: filepath.Join(dir, ConfigName), Users: "/u", Admins: filepath.Join(dir, AdminsName), AdminsGiven: true}
	if got, err := Locate(Flags{Users: "/u", Directory: dir}, none); err != nil || got != want {
		t.Errorf("Locate with -D = %+v, %v, want %+v", got, err, want)
	}
	if got, err := Locate(Flags{Users: "/u"}, inEnv); err != nil || got != want {
		t.Errorf("Locate with the variable = %+v, %v, want %+v", got, err, want)
	}
	defaults := Files{Config: "/etc/pgmoneta/pgmoneta.conf", Users: "/etc/pgmoneta/pgmoneta_users.conf", Admins: "/etc/pgmoneta/pgmoneta_admins.conf"}
	if got, err := Locate(Flags{}, none); err != nil || got != defaults {
		t.Errorf("Locate without anything = %+v, %v, want %+v", got, err, defaults)
	}
	if _, err := Locate(Flags{Directory: dir + "/missing"}, none); err == nil {
		t.Error("Locate accepted a missing directory")
	}
}

func TestPIDPath(t *testing.T) {
	t.Parallel()
	m := Main{Host: "*", UnixSocketDir: "/tmp/"}
	if got, want := m.PIDPath(), "/tmp/pgmoneta.all.pid"; got != want {
		t.Errorf("PIDPath() = %s, want %s", got, want)
	}
	if got, want := m.SocketPath(), "/tmp/.s.pgmoneta"; got != want {
		t.Errorf("SocketPath() = %s, want %s", got, want)
	}
}
