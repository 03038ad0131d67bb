package cmdline

import (
	"bytes"
	"strings"
	"testing"
)

func sample() *Program {
	return &Program{
		Name:  "tool",
		About: "What it is for",
		Usage: []string{"tool [ OPTIONS ] COMMAND"},
		Commands: []Command{
			{"list", "<server> [--sort asc|desc]", "list things"},
			{"restore", "[options] <server> <backup> [<position>] <directory>", "bring back"},
			{"conf get", "[<key>]", "show a setting"},
			{"conf set", "<key> <value>", "change a setting"},
			{"mode", "<server> online|offline", "switch"},
			{"load", "FILE", "read a file"},
			{"status", "", "show all"},
			{"status details", "", "show more"},
		},
		Groups: []Group{{Title: "Options", Options: []Option{
			{"-c", "--config", "FILE", nil, "the configuration\nof the tool", nil},
			{"-s", "--sort", "ORDER", []string{"asc", "desc"}, "order", []string{"list"}},
			{"", "--force", "", nil, "do it anyway", []string{"restore", "conf set"}},
			{"-v", "--verbose", "", nil, "say more", nil},
		}}},
		Outro: "The end.",
	}
}

func sampleValues(name string, _ []string) []string {
	return map[string][]string{"server": {"primary", "standby"}, "backup": {"newest", "oldest"}, "position": {"latest"}}[name]
}

func TestHelpPutsLongCommandsOnLinesOfTheirOwn(t *testing.T) {
	t.Parallel()
	p := sample()
	want := "\n  restore [options] <server> <backup> [<position>] <directory>\n" + strings.Repeat(" ", farColumn) + "bring back\n"
	if got := p.CommandHelp(); !strings.Contains(got, want) {
		t.Errorf("the help is\n%s\nwant in it\n%s", got, want)
	}
}

func TestComplete(t *testing.T) {
	t.Parallel()
	tests := []struct {
		typed string // the last word ends at |
		want  string
	}{
		{"", "list restore conf mode load status"},
		{"re", "restore"},
		{"conf ", "get set"},
		{"conf g", "get"},
		{"conf get ", ""},
		{"list ", "primary standby"},
		{"list s", "standby"},
		{"list primary ", ""},
		{"list -s ", "asc desc"},
		{"list --sort d", "desc"},
		{"list --sort = d", "desc"},
		{"list --sort =", "asc desc"},
		{"list --sort desc p", "primary"},
		{"restore primary ", "newest oldest"},
		{"restore primary newest ", "latest :directories"},
		{"restore primary newest latest ", ":directories"},
		{"restore primary newest latest /x ", ""},
		{"mode primary o", "online offline"},
		{"load ", ":files"},
		{"-c ", ":files"},
		{"-c x li", "list"},
		{"--", "--config --sort --force --verbose"},
		{"list --", "--config --sort --verbose"},
		{"conf --", "--config --force --verbose"},
		{"conf set --f", "--force"},
		{"list -- p", "primary"},
		{"list -- --", ""},
		{"status ", "details"},
		{"nosuch ", ""},
	}
	for _, tt := range tests {
		words := strings.Split(tt.typed, " ")
		var got []string
		for _, c := range sample().Complete(words, sampleValues) {
			got = append(got, c.Word)
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("Complete(%q) = %q, want %q", tt.typed, got, tt.want)
		}
	}
}

func TestAnswer(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := sample().Answer(&out, []string{"words", "--", "--co"}, nil); err != nil || out.String() != "--config\tthe configuration\n" {
		t.Errorf("Answer = %v, %q", err, out.String())
	}
	for _, shell := range Shells() {
		out.Reset()
		err := sample().Answer(&out, []string{shell}, nil)
		if err != nil || !strings.Contains(out.String(), "completion words -- ") || strings.Contains(out.String(), "@NAME@") {
			t.Errorf("Answer to %s = %v, %q", shell, err, out.String())
		}
	}
	for _, args := range [][]string{nil, {"tcsh"}, {"bash", "zsh"}} {
		if err := sample().Answer(&out, args, nil); err == nil || !strings.Contains(err.Error(), "bash, zsh, fish") {
			t.Errorf("Answer(%q) = %v, want the shells", args, err)
		}
	}
}

func TestHelp(t *testing.T) {
	t.Parallel()
	const want = `tool 1
  What it is for

Usage:
  tool [ OPTIONS ] COMMAND

Options:
  -c, --config FILE      the configuration
                         of the tool
  -s, --sort ORDER       order
      --force            do it anyway
  -v, --verbose          say more

The end.
`
	if got := sample().Help("1"); got != want {
		t.Errorf("Help:\n%s\nwant\n%s", got, want)
	}
}

func TestManualEscapesWhatRoffWouldTake(t *testing.T) {
	t.Parallel()
	p := sample()
	p.Outro = ".SH is no heading, ~ and \\n and --force and `a-b` are what they are.\n\nA list:\n  'x' first\n  .y  second"
	const want = `.SH "NOTES"
\&.SH is no heading, \(ti and \en and \-\-force and \fBa\-b\fR are what they are.
.PP
.nf
A list:
  \(aqx\(aq first
  .y  second
.fi
`
	if got := p.Manual("1").Roff(); !strings.HasSuffix(got, want) {
		t.Errorf("Roff:\n%s\nwant it to end with\n%s", got, want)
	}
}
