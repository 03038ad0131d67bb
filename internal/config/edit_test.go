package config

import (
	"strings"
	"testing"
)

func TestEditChangesOneLine(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, section, key, value, old, new string }{
		{"a line that is there", MainSection, "log_level", "warn", "log_level = debug2\n", "log_level = warn\n"},
		{"with a comment", MainSection, "log_path", "'/x #y'", "log_path = '/tmp/pg$moneta #1.log' ; comment\n", "log_path = '/x #y'\n"},
		{"a key that is new in the main section", MainSection, "job_nice", "5", "hush\n\n[primary]", "hush\njob_nice = 5\n\n[primary]"},
		{"a key of a server", "primary", "retention", "21", "retention = 14", "retention = 21"},
		{"a new key of the last server", "replica", "passfile", "/p", "/x||/y\n", "/x||/y\npassfile = /p\n"},
		{"a codec with other levels", MainSection, "compression", "zstd", "server-lz4", "zstd"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := Edit("test.conf", []byte(sample), testEnv, tt.section, tt.key, tt.value)
			if want := strings.Replace(sample, tt.old, tt.new, 1); err != nil || string(got) != want {
				t.Errorf("Edit: %v\n%s\nwant\n%s", err, got, want)
			}
		})
	}
	dos := strings.ReplaceAll(sample, "\n", "\r\n")
	got, err := Edit("test.conf", []byte(dos), testEnv, "primary", "workers", "3")
	if err != nil || strings.Count(string(got), "\r\n") != strings.Count(dos, "\r\n") {
		t.Errorf("lines of DOS: %v\n%q", err, got)
	}
	if got, err = Edit("test.conf", []byte(dos), testEnv, "primary", "port", "3"); err != nil || !strings.Contains(string(got), "port = 3\r\n") {
		t.Errorf("lines of DOS: %v\n%q", err, got)
	}
}

func TestEditRefusesWhatWouldChangeMore(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ section, key, value string }{
		{"primary", "port", "1\n[evil]\nhost = x"},
		{"primary", "port", "1\nuser = other"},
		{"primary", "host", "x\nport = 7"},
		{"nobody", "port", "1"},
		{"primary", "nonsense", "1"},
		{MainSection, "metrics", "x"},
		{MainSection, "log_path", "'open"},
	} {
		if got, err := Edit("test.conf", []byte(sample), testEnv, tt.section, tt.key, tt.value); err == nil {
			t.Errorf("Edit(%q, %q, %q) succeeds:\n%s", tt.section, tt.key, tt.value, got)
		}
	}
	if _, err := Edit("test.conf", []byte("[pgmoneta]\nnonsense = 1\n"), testEnv, MainSection, "metrics", "1"); err == nil {
		t.Error("a file with mistakes is edited")
	}
}
