package cmdline

import (
	"fmt"
	"strings"
)

// pageDate is the day on which the texts of the manual pages were last gone over. It is no clock's: a page is the same
// whenever it is made.
const pageDate = "2026-11-22"

// A Page is a manual page.
type Page struct {
	Name    string
	Section int
	About   string // half a sentence, without a full stop
	Version string
	Parts   []Part
	SeeAlso []string
}

// A Part is a headed part of a page. Its text is paragraphs with empty lines between them; one with lines that are
// indented is set as it is.
type Part struct {
	Title   string
	Text    string
	Literal bool // all of Text is set as it is
	Entries []Entry
	Notes   string // paragraphs after the entries
	Parts   []Part
}

// Manual returns the manual page of the program.
func (p *Program) Manual(version string) *Page {
	page := &Page{Name: p.Name, Section: 1, About: lowerFirst(p.About), Version: version, SeeAlso: p.SeeAlso}
	add := func(part Part) {
		if part.Text != "" || len(part.Entries) > 0 || len(part.Parts) > 0 {
			page.Parts = append(page.Parts, part)
		}
	}
	add(Part{Title: "Synopsis", Text: strings.Join(p.Usage, "\n"), Literal: true})
	add(Part{Title: "Description", Text: p.Intro})
	commands := Part{Title: "Commands"}
	for _, c := range p.Commands {
		commands.Entries = append(commands.Entries, Entry{strings.TrimSpace(c.Name + " " + c.Args), c.Help})
	}
	add(commands)
	add(p.optionPart())
	add(Part{Title: "Notes", Text: p.Outro})
	add(Part{Title: "Files", Entries: p.Files})
	return page
}

// optionPart returns the options, each group below its title.
func (p *Program) optionPart() Part {
	part := Part{Title: "Options"}
	for _, g := range p.Groups {
		group := Part{Title: g.Title, Notes: g.Notes}
		for _, o := range g.Options {
			group.Entries = append(group.Entries, Entry{strings.TrimSpace(o.synopsis()), strings.ReplaceAll(o.Help, "\n", " ")})
		}
		if g.Title == part.Title {
			part.Entries, part.Notes = group.Entries, group.Notes
			continue
		}
		part.Parts = append(part.Parts, group)
	}
	return part
}

func lowerFirst(s string) string {
	if s == "" {
		return ""
	}
	return strings.ToLower(s[:1]) + s[1:]
}

// Roff returns the page in the macros of man(7).
func (p *Page) Roff() string {
	r := &roff{}
	r.macro(".TH", strings.ToUpper(p.Name), fmt.Sprint(p.Section), pageDate, "pgmoneta "+p.Version, "pgmoneta")
	r.macro(".SH", "NAME")
	r.line(escape(p.Name) + ` \- ` + escape(p.About))
	for _, part := range p.Parts {
		r.part(".SH", strings.ToUpper(part.Title), part)
	}
	if len(p.SeeAlso) > 0 {
		r.macro(".SH", "SEE ALSO")
		for i, name := range p.SeeAlso {
			page, section, _ := strings.Cut(name, "(")
			end := ","
			if i == len(p.SeeAlso)-1 {
				end = ""
			}
			r.line(`.BR ` + escapeName(page) + ` (` + section + end)
		}
	}
	return r.b.String()
}

// roff collects lines.
type roff struct{ b strings.Builder }

func (r *roff) line(text string) { r.b.WriteString(text + "\n") }

func (r *roff) macro(name string, args ...string) {
	for _, a := range args {
		name += ` "` + strings.ReplaceAll(escape(a), `"`, `\(dq`) + `"`
	}
	r.line(name)
}

func (r *roff) part(heading, title string, part Part) {
	r.macro(heading, title)
	if part.Literal {
		r.literal(part.Text)
	} else {
		r.paragraphs(part.Text, false)
	}
	for _, e := range part.Entries {
		r.line(".TP")
		r.line(`\fB` + escapeName(e.Name) + `\fR`)
		r.line(escape(e.Help))
	}
	r.paragraphs(part.Notes, len(part.Entries) > 0)
	for _, sub := range part.Parts {
		r.part(".SS", sub.Title, sub)
	}
}

// paragraphs writes a text. The first paragraph after a heading needs no macro.
func (r *roff) paragraphs(text string, first bool) {
	if text == "" {
		return
	}
	for i, paragraph := range strings.Split(text, "\n\n") {
		if i > 0 || first {
			r.line(".PP")
		}
		if strings.Contains(paragraph, "\n  ") {
			r.literal(paragraph)
			continue
		}
		for line := range strings.Lines(paragraph) {
			r.line(escape(strings.TrimSuffix(line, "\n")))
		}
	}
}

func (r *roff) literal(text string) {
	r.line(".nf")
	for line := range strings.Lines(text) {
		r.line(escape(strings.TrimSuffix(line, "\n")))
	}
	r.line(".fi")
}

// escape makes a text of one line safe, and turns `code` and **strong** of Markdown into bold.
func escape(text string) string {
	text = escapeCharacters(text)
	strong := strings.Split(text, "**")
	for i := 1; i < len(strong); i += 2 {
		strong[i] = `\fB` + strong[i] + `\fR`
	}
	code := strings.Split(strings.Join(strong, ""), "`")
	for i := 1; i < len(code); i += 2 {
		code[i] = `\fB` + strings.ReplaceAll(code[i], "-", `\-`) + `\fR`
	}
	return guard(strings.Join(dashes(strings.Join(code, "")), " "))
}

// dashes keeps the dashes of options, which a terminal otherwise shows as hyphens that cannot be copied.
func dashes(text string) []string {
	words := strings.Split(text, " ")
	for i, word := range words {
		if strings.HasPrefix(strings.TrimLeft(word, "[("), "-") {
			words[i] = strings.ReplaceAll(word, "-", `\-`)
		}
	}
	return words
}

// escapeName is escape for what is typed: every dash is one.
func escapeName(text string) string {
	return guard(strings.ReplaceAll(escapeCharacters(text), "-", `\-`))
}

func escapeCharacters(text string) string {
	return strings.NewReplacer(`\`, `\e`, "~", `\(ti`, "^", `\(ha`, "'", `\(aq`).Replace(text)
}

// guard keeps a line from being a request.
func guard(line string) string {
	if strings.HasPrefix(line, ".") {
		return `\&` + line
	}
	return line
}
