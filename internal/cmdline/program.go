package cmdline

import (
	"fmt"
	"slices"
	"strings"
)

// A Program is a command line.
type Program struct {
	Name     string   // as it is typed
	About    string   // half a sentence, without a full stop
	Usage    []string // the forms of a call, each with the name
	Intro    string   // paragraphs after them
	Commands []Command
	Groups   []Group // the options
	Outro    string  // paragraphs at the end
	Files    []Entry // for the manual page only
	SeeAlso  []string
}

// A Command is what a program does.
type Command struct {
	Name string // words as they are typed: "conf get"
	// Args are its arguments in the notation of a synopsis: "[--all] <server> [<backup>] on|off". Angle
	// brackets, or capitals, make a name; options are passed over.
	Args string
	Help string // half a sentence
}

// A Group is options with a title.
type Group struct {
	Title   string // without a colon
	Options []Option
	Notes   string // paragraphs after them
}

// An Option is one option.
type Option struct {
	Short string   // with its dash, "" without
	Long  string   // with its dashes
	Arg   string   // the name of its value, "" when it has none
	Words []string // the values it takes, nil when they cannot be listed
	Help  string   // may have several lines
	For   []string // the commands it belongs to; nil for all
}

// An Entry is a name with an explanation.
type Entry struct{ Name, Help string }

// options returns the options of all groups.
func (p *Program) options() []Option {
	var list []Option
	for _, g := range p.Groups {
		list = append(list, g.Options...)
	}
	return list
}

// belongs reports whether the option may stand with the command.
func (o *Option) belongs(command string) bool {
	return o.For == nil || slices.Contains(o.For, command)
}

// synopsis is the option as a help text shows it, indented so that options with and without a short form align.
func (o *Option) synopsis() string {
	left := "    "
	if o.Short != "" {
		left = o.Short + ", "
	}
	left += o.Long
	if o.Arg != "" {
		left += " " + o.Arg
	}
	return left
}

// Columns at which explanations begin: usually, and where something is too long for that.
const (
	nearColumn = 25
	farColumn  = 32
)

func column(lefts []string) int {
	for _, left := range lefts {
		if len(left) > nearColumn-2 {
			return farColumn
		}
	}
	return nearColumn
}

// OptionHelp returns the options with their titles and explanations.
func (p *Program) OptionHelp() string {
	var b strings.Builder
	for _, g := range p.Groups {
		b.WriteString("\n" + g.Title + ":\n")
		lefts := make([]string, len(g.Options))
		for i, o := range g.Options {
			lefts[i] = "  " + o.synopsis()
		}
		at := column(lefts)
		for i, o := range g.Options {
			help := strings.ReplaceAll(o.Help, "\n", "\n"+strings.Repeat(" ", at))
			writeBeside(&b, at, lefts[i], help)
		}
		writeIndented(&b, g.Notes)
	}
	return b.String()
}

// Help returns the text of --help.
func (p *Program) Help(version string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s\n  %s\n\nUsage:\n", p.Name, version, p.About)
	for _, line := range p.Usage {
		fmt.Fprintf(&b, "  %s\n", line)
	}
	writeIndented(&b, p.Intro)
	b.WriteString(p.OptionHelp())
	if p.Outro != "" {
		b.WriteString("\n" + p.Outro + "\n")
	}
	return b.String()
}

// CommandHelp returns the commands with their explanations, side by side.
func (p *Program) CommandHelp() string {
	lefts := make([]string, len(p.Commands))
	for i, c := range p.Commands {
		lefts[i] = "  " + strings.TrimSpace(c.Name+" "+c.Args)
	}
	var b strings.Builder
	for i, c := range p.Commands {
		writeBeside(&b, column(lefts), lefts[i], c.Help)
	}
	return b.String()
}

// writeBeside writes an explanation at a column, in a line of its own when what it explains reaches that far.
func writeBeside(b *strings.Builder, at int, left, help string) {
	if len(left) >= at {
		b.WriteString(left + "\n")
		left = ""
	}
	fmt.Fprintf(b, "%-*s%s\n", at, left, help)
}

// writeIndented writes paragraphs below an empty line, two columns in.
func writeIndented(b *strings.Builder, text string) {
	if text == "" {
		return
	}
	b.WriteByte('\n')
	for line := range strings.Lines(text + "\n") {
		if strings.TrimSpace(line) != "" {
			b.WriteString("  ")
		}
		b.WriteString(line)
	}
}
