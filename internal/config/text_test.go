package config

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

const twoServers = "\xef\xbb\xbf# top\n[pgmoneta]\nhost = * # all of them\nbase_dir '/a #b'\n\n[primary]\nhost = db\nport = 5432\n\n# The one in Oslo.\n[oslo]\nhost = oslo"

func TestTextShowsWhatIsWritten(t *testing.T) {
	t.Parallel()
	text := NewText("x.conf", []byte(twoServers))
	if got, want := text.Sections(), []string{"pgmoneta", "primary", "oslo"}; !slices.Equal(got, want) {
		t.Errorf("sections are %q, want %q", got, want)
	}
	if got, err := text.Keys("primary"); err != nil || !slices.Equal(got, []string{"host", "port"}) {
		t.Errorf("keys are %q, %v", got, err)
	}
	for _, tt := range []struct{ section, key, want string }{
		{"pgmoneta", "host", "*"}, {"pgmoneta", "base_dir", "'/a #b'"}, {"oslo", "host", "oslo"},
	} {
		if got, err := text.Value(tt.section, tt.key); err != nil || got != tt.want {
			t.Errorf("Value(%q, %q) = %q, %v, want %q", tt.section, tt.key, got, err, tt.want)
		}
	}
	if string(text.Bytes()) != twoServers {
		t.Errorf("the text became %q", text.Bytes())
	}
}

func TestTextNamesWhatMayHaveBeenMeant(t *testing.T) {
	t.Parallel()
	text := NewText("x.conf", []byte(twoServers))
	for _, tt := range []struct{ section, key, want string }{
		{"primray", "host", "Section [primray] not found in x.conf; did you mean [primary]?"},
		{"primary", "prot", "Key 'prot' not found in section [primary]; did you mean port?"},
		{"primary", "user", "Key 'user' not found in section [primary]"},
		{"pgmoneta", "metrix", "Key 'metrix' not found in section [pgmoneta]; did you mean metrics?"},
	} {
		_, err := text.Value(tt.section, tt.key)
		if notFound := new(NotFoundError); !errors.As(err, &notFound) || err.Error() != tt.want {
			t.Errorf("Value(%q, %q): %v, want %s", tt.section, tt.key, err, tt.want)
		}
	}
}

func TestTextRefusesWhatStandsTwice(t *testing.T) {
	t.Parallel()
	keys := NewText("x.conf", []byte("[a]\nhost = 1\nport = 1\nhost = 2\n"))
	sections := NewText("x.conf", []byte("[a]\nhost = 1\n[b]\nhost = 1\n[a]\nport = 1\n"))
	_, one := keys.Value("a", "host")
	_, two := keys.Delete("a", "host")
	_, three := sections.Value("a", "port")
	_, four := sections.DeleteSection("a")
	_, five := Edit("x.conf", keys.Bytes(), testEnv, "a", "host", "3")
	for i, tt := range []struct {
		err  error
		want string
	}{
		{one, "x.conf:4: [a] host: the key stands twice in this section, first in line 2; remove one"},
		{two, "x.conf:4: [a] host: the key stands twice in this section, first in line 2; remove one"},
		{three, "x.conf:5: [a] this section stands twice, first in line 1; remove one"},
		{four, "x.conf:5: [a] this section stands twice, first in line 1; remove one"},
		{five, "the file is not changed, because it is not right as it is: x.conf:4: [a] host = 2: the key stands twice in this section, first in line 2; remove one"},
	} {
		if tt.err == nil || tt.err.Error() != tt.want {
			t.Errorf("case %d: %v, want %s", i, tt.err, tt.want)
		}
	}
}

func TestTextDeletesNoMore(t *testing.T) {
	t.Parallel()
	text := NewText("x.conf", []byte(twoServers))
	for _, tt := range []struct{ section, key, gone string }{
		{"primary", "port", "port = 5432\n"},
		{"oslo", "host", "host = oslo"},
		{"primary", "", "[primary]\nhost = db\nport = 5432\n\n"},
		{"oslo", "", "[oslo]\nhost = oslo"},
	} {
		rest, err := text.DeleteSection(tt.section)
		if tt.key != "" {
			rest, err = text.Delete(tt.section, tt.key)
		}
		if want := strings.Replace(twoServers, tt.gone, "", 1); err != nil || string(rest.Bytes()) != want {
			t.Errorf("without [%s] %s: %v\n%q, want\n%q", tt.section, tt.key, err, rest.Bytes(), want)
		}
	}
}

func TestTextTakesMistakesOut(t *testing.T) {
	t.Parallel()
	text := NewText("x.conf", []byte("stray\n[pgmoneta]\nnonsense = 1\n= 2\nmetrics = x\n[open\nhost = y\n"))
	rest, err := text.Delete(MainSection, "nonsense")
	if err == nil {
		rest, err = rest.Delete(MainSection, "metrics")
	}
	if want := "stray\n[pgmoneta]\n= 2\n[open\nhost = y\n"; err != nil || string(rest.Bytes()) != want {
		t.Errorf("%v\n%q, want\n%q", err, rest.Bytes(), want)
	}
}

func TestAddSectionRefusesSlips(t *testing.T) {
	t.Parallel()
	text := NewText("x.conf", []byte(twoServers+"\n[node-1]\n"))
	for _, slip := range []string{"primray", "pimary", "Primary", "primary ", "pgmonet", "all", "a/b", "a#b", "a]b", "", ".x"} {
		if got, err := text.AddSection(slip, false); err == nil {
			t.Errorf("[%s] is added:\n%s", slip, got.Bytes())
		}
	}
	for _, name := range []string{"node-2", "node", "west", "replica"} {
		if got, err := text.AddSection(name, false); err != nil || !strings.HasSuffix(string(got.Bytes()), "\n\n["+name+"]\n") {
			t.Errorf("[%s]: %v", name, err)
		}
	}
	if _, err := text.AddSection("primray", true); err != nil {
		t.Error(err)
	}
	if got, err := NewText("x", nil).AddSection(MainSection, false); err != nil || string(got.Bytes()) != "[pgmoneta]\n" {
		t.Errorf("the first section: %q, %v", got.Bytes(), err)
	}
}

func TestEditRefusesValuesThatTheDaemonWould(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ section, key, value, says string }{
		{"primary", "wal_slot", "Bad Slot", "x.conf:9: [primary] wal_slot = Bad Slot: PostgreSQL accepts"},
		{"primary", "user", "", "required"},
		{"primary", "prot", "1", "x.conf:9: [primary] prot: unknown key; did you mean port?"},
		{"primary", "user", "a#b", "x.conf:9: [primary] user = a#b: # and ; begin a comment: put the value in quotes"},
		{MainSection, "wal_slot", "x", "belongs into a server section"},
		{MainSection, "s3_secret_access_key", "geheim#", "s3_secret_access_key: # and ;"},
		{MainSection, "metrics", "70000", "x.conf:5: [pgmoneta] metrics = 70000: a port is a number from 0 to 65535"},
	} {
		_, err := Edit("x.conf", []byte(twoServers), testEnv, tt.section, tt.key, tt.value)
		if err == nil || !strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), "geheim") {
			t.Errorf("Edit(%q, %q, %q): %v, want %q", tt.section, tt.key, tt.value, err, tt.says)
		}
	}
}

func TestEditMendsAValue(t *testing.T) {
	t.Parallel()
	got, err := Edit("x.conf", []byte("[pgmoneta]\nmetrics = x\n"), testEnv, MainSection, "metrics", "1")
	if err != nil || string(got) != "[pgmoneta]\nmetrics = 1\n" {
		t.Errorf("Edit: %q, %v", got, err)
	}
}

// FuzzSetThenGet holds every value that is accepted to be what is read again, and every other line to be as it was.
func FuzzSetThenGet(f *testing.F) {
	f.Add(twoServers, "primary", "host", "a,b")
	f.Add(twoServers, "pgmoneta", "log_path", "'/x #y'")
	f.Add(twoServers, "oslo", "user", " x ; y")
	f.Add(sample, "pgmoneta", "log_line_prefix", "\"%Y\"")
	f.Add("[pgmoneta]\r\nmetrics = x", "pgmoneta", "metrics", "1\r")
	f.Add("[a]\n# b\n[b]\nhost=1", "a", "host = 2\nport", "1\n[c]")
	f.Fuzz(func(t *testing.T, text, section, key, value string) {
		edited, err := Edit("x.conf", []byte(text), testEnv, section, key, value)
		if err != nil {
			return
		}
		after := NewText("x.conf", edited)
		if got, err := after.Value(section, key); err != nil || got != strings.Trim(value, blanks) {
			t.Fatalf("Value = %q, %v, want %q", got, err, value)
		}
		rest, err := after.Delete(section, key)
		if err != nil {
			t.Fatal(err)
		}
		if before := NewText("x.conf", []byte(text)); !sameBut(before, rest, section, key) {
			t.Fatalf("other lines changed:\n%q\n%q", text, rest.Bytes())
		}
	})
}

// sameBut reports whether rest is before without a key, apart from the end of its last line.
func sameBut(before, rest *Text, section, key string) bool {
	if without, err := before.Delete(section, key); err == nil {
		before = without
	}
	a, b := string(before.Bytes()), string(rest.Bytes())
	return a == b || a+"\n" == b
}
