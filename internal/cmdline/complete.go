package cmdline

import (
	"embed"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Verb is the first word of a call that is about completion: "completion bash" prints the script of a shell, and the
// scripts call "completion words -- WORD...", where no WORD is an option of that call.
const (
	Verb      = "completion"
	WordsVerb = "words"
)

//go:embed completion.bash completion.zsh completion.fish
var scripts embed.FS

// Shells returns the shells there is a script for.
func Shells() []string { return []string{"bash", "zsh", "fish"} }

// Script returns what makes a shell complete the command lines of a program.
func Script(shell, program string) (string, error) {
	if !slices.Contains(Shells(), shell) {
		return "", fmt.Errorf("no completion for shell '%s': use %s", shell, strings.Join(Shells(), ", "))
	}
	text, err := scripts.ReadFile("completion." + shell)
	return strings.ReplaceAll(string(text), "@NAME@", program), err
}

// A Values returns the words that may stand for an argument or the value of an option called name, nil when it does
// not know any. Words are those of the line that were typed before.
type Values func(name string, words []string) []string

// Answer does what "completion ARGS" asks for.
func (p *Program) Answer(w io.Writer, args []string, values Values) error {
	if len(args) > 0 && args[0] == WordsVerb {
		_, err := io.WriteString(w, p.reply(args[1:], values))
		return err
	}
	if len(args) != 1 {
		return fmt.Errorf("completion takes the name of a shell: %s", strings.Join(Shells(), ", "))
	}
	script, err := Script(args[0], p.Name)
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, script)
	return err
}

// reply returns the candidates for the scripts, one in a line with a tab before its explanation.
func (p *Program) reply(words []string, values Values) string {
	if len(words) > 0 && words[0] == "--" {
		words = words[1:]
	}
	var b strings.Builder
	for _, c := range p.Complete(words, values) {
		fmt.Fprintf(&b, "%s\t%s\n", c.Word, firstLine(c.Help))
	}
	return b.String()
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return strings.ReplaceAll(line, "\t", " ")
}

// A Candidate is a word that may come next. The words [Files] and [Directories] leave it to the shell.
type Candidate struct{ Word, Help string }

// Candidates that are no words.
const (
	Files       = ":files"
	Directories = ":directories"
)

// Complete returns what the last of words, which may be empty, can become.
func (p *Program) Complete(words []string, values Values) []Candidate {
	if values == nil {
		values = func(string, []string) []string { return nil }
	}
	words = joinEquals(words)
	if len(words) == 0 {
		words = []string{""}
	}
	before, last := words[:len(words)-1], words[len(words)-1]
	l := p.read(before)
	var list []Candidate
	switch {
	case l.open != nil:
		list = choices(l.open.Words, l.open.Arg, before, values)
	case strings.HasPrefix(last, "-") && !l.ended:
		list = p.optionWords(l)
	default:
		list = p.nextWords(l, before, values)
	}
	return slices.DeleteFunc(list, func(c Candidate) bool {
		return c.Word != Files && c.Word != Directories && !strings.HasPrefix(c.Word, last)
	})
}

// joinEquals undoes what bash does to --option=value, which it takes for three words.
func joinEquals(words []string) []string {
	var out []string
	for i, word := range words {
		after := i > 0 && strings.HasPrefix(words[i-1], "--")
		switch {
		case word == "=" && after && i == len(words)-1:
			out = append(out, "")
		case word == "=" && after:
		default:
			out = append(out, word)
		}
	}
	return out
}

// A line is what of a command line has been typed.
type line struct {
	words []string // without options
	open  *Option  // the option whose value comes next
	ended bool     // by "--": all that follows are words
}

func (p *Program) read(words []string) line {
	var l line
	for _, word := range words {
		switch {
		case l.open != nil:
			l.open = nil
		case l.ended || !strings.HasPrefix(word, "-"):
			l.words = append(l.words, word)
		case word == "--":
			l.ended = true
		default:
			if o := p.option(word); o != nil && o.Arg != "" {
				l.open = o
			}
		}
	}
	return l
}

func (p *Program) option(word string) *Option {
	for _, o := range p.options() {
		if word == o.Long || word == o.Short {
			return &o
		}
	}
	return nil
}

// commands returns those the words begin with, or, while words are missing, could become.
func (p *Program) commands(words []string) []Command {
	var list []Command
	for _, c := range p.Commands {
		name := strings.Fields(c.Name)
		n := min(len(name), len(words))
		if slices.Equal(name[:n], words[:n]) {
			list = append(list, c)
		}
	}
	return list
}

func (p *Program) optionWords(l line) []Candidate {
	var list []Candidate
	commands := p.commands(l.words)
	for _, o := range p.options() {
		fits := slices.ContainsFunc(commands, func(c Command) bool { return o.belongs(c.Name) })
		if fits || len(p.Commands) == 0 {
			list = append(list, Candidate{o.Long, o.Help})
		}
	}
	return list
}

// nextWords returns sub-commands and arguments.
func (p *Program) nextWords(l line, before []string, values Values) []Candidate {
	var list []Candidate
	seen := map[string]bool{}
	add := func(c Candidate) {
		if !seen[c.Word] {
			seen[c.Word] = true
			list = append(list, c)
		}
	}
	for _, c := range p.commands(l.words) {
		name := strings.Fields(c.Name)
		if len(l.words) < len(name) {
			help := c.Help
			if len(l.words) < len(name)-1 {
				help = "" // of one command among several
			}
			add(Candidate{name[len(l.words)], help})
			continue
		}
		for _, a := range arguments(c.Args).at(len(l.words) - len(name)) {
			for _, candidate := range choices(a.words, a.name, before, values) {
				add(candidate)
			}
		}
	}
	return list
}

// choices returns what may stand for one argument.
func choices(words []string, name string, before []string, values Values) []Candidate {
	name = strings.ToLower(strings.Trim(name, "<>"))
	if words == nil {
		words = values(name, before)
	}
	switch {
	case words != nil:
	case name == "file" || name == "path" || strings.HasSuffix(name, "_file"):
		words = []string{Files}
	case name == "dir" || name == "directory":
		words = []string{Directories}
	}
	list := make([]Candidate, len(words))
	for i, word := range words {
		list[i].Word = word
	}
	return list
}

// An argument is one of a command.
type argument struct {
	name     string
	words    []string // one of these
	optional bool
}

type argumentList []argument

// arguments reads a synopsis.
func arguments(synopsis string) argumentList {
	var list argumentList
	depth, skip := 0, false
	for _, field := range strings.Fields(synopsis) {
		opened := strings.Count(field, "[")
		word := strings.Trim(field, "[].")
		switch {
		case skip: // the value of an option
			skip = strings.HasPrefix(word, "-")
		case strings.HasPrefix(word, "-"):
			skip = !strings.HasSuffix(field, "]")
		case word == "" || word == "options" || word == "OPTIONS":
		case strings.HasPrefix(word, "<") || word == strings.ToUpper(word):
			list = append(list, argument{name: word, optional: depth+opened > 0})
		default:
			list = append(list, argument{words: strings.Split(word, "|"), optional: depth+opened > 0})
		}
		depth += opened - strings.Count(field, "]")
	}
	return list
}

// at returns what may be argument i: those in brackets may have been left out.
func (l argumentList) at(i int) []argument {
	var list []argument
	needed := 0
	for j, a := range l {
		if needed <= i && i <= j {
			list = append(list, a)
		}
		if !a.optional {
			needed++
		}
	}
	return list
}
