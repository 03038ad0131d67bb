package console

import (
	"strings"
	"unicode/utf8"
)

// A sheet is text for people, no line of which is longer than its width.
type sheet struct {
	width int
	out   strings.Builder
}

// A field is a name with a value.
type field struct{ name, value string }

// A column is one of a table.
type column struct {
	head  string
	right bool // numbers
	wrap  bool // a long text: it takes the space that others leave, on several lines
	minor bool // left out where the width does not suffice
}

// A row is one line of a table, with what is said below it.
type row struct {
	cells []string
	notes []string
}

const (
	gap       = "  " // between two columns
	leastWrap = 16   // what a wrapped column needs
)

// width of a text on a terminal. Every character counts for one.
func width(s string) int { return utf8.RuneCountInString(s) }

// line writes one line, wrapped, the further ones indented.
func (s *sheet) line(text string, indent int) {
	first := strings.Repeat(" ", indent)
	for _, l := range wrap(text, s.width-indent) {
		s.out.WriteString(strings.TrimRight(first+l, " ") + "\n")
	}
}

// blank writes an empty line, except at the beginning.
func (s *sheet) blank() {
	if s.out.Len() > 0 {
		s.out.WriteByte('\n')
	}
}

// fields writes names and values side by side. Those without a value are left out.
func (s *sheet) fields(list []field) {
	names := 0
	for _, f := range list {
		if f.value != "" {
			names = max(names, width(f.name))
		}
	}
	names = min(names, s.width/2)
	for _, f := range list {
		if f.value == "" {
			continue
		}
		for i, l := range wrap(f.value, s.width-names-len(gap)) {
			name := f.name
			if i > 0 {
				name = ""
			}
			s.out.WriteString(pad(name, names) + gap + l + "\n")
		}
	}
}

// table writes rows below heads. Columns without any content are left out.
func (s *sheet) table(columns []column, rows []row) {
	keep := used(columns, rows)
	widths := natural(columns, rows)
	for i := len(columns) - 1; i >= 0 && needed(columns, widths, keep) > s.width; i-- {
		keep[i] = keep[i] && !columns[i].minor
	}
	if needed(columns, widths, keep) > s.width {
		s.records(columns, rows, keep)
		return
	}
	spread(columns, widths, keep, s.width-needed(columns, widths, keep))
	s.cells(columns, widths, keep, heads(columns))
	for _, r := range rows {
		s.cells(columns, widths, keep, r.cells)
		for _, note := range r.notes {
			s.line(note, 4)
		}
	}
}

// spread gives the wrapped columns the space that is left, in fair shares.
func spread(columns []column, widths []int, keep []bool, left int) {
	open := 0
	for i, c := range columns {
		if c.wrap && keep[i] {
			open++
		}
	}
	for i, c := range columns {
		if !c.wrap || !keep[i] {
			continue
		}
		more := min(max(0, widths[i]-leastWrap), left/open)
		widths[i] = min(widths[i], leastWrap+more)
		left -= more
		open--
	}
}

func heads(columns []column) []string {
	list := make([]string, len(columns))
	for i, c := range columns {
		list[i] = c.head
	}
	return list
}

func used(columns []column, rows []row) []bool {
	keep := make([]bool, len(columns))
	for _, r := range rows {
		for i, cell := range r.cells {
			keep[i] = keep[i] || cell != ""
		}
	}
	return keep
}

func natural(columns []column, rows []row) []int {
	widths := make([]int, len(columns))
	for i, c := range columns {
		widths[i] = width(c.head)
		for _, r := range rows {
			widths[i] = max(widths[i], width(r.cells[i]))
		}
	}
	return widths
}

// needed returns how wide the table is at least.
func needed(columns []column, widths []int, keep []bool) int {
	sum := -len(gap)
	for i, w := range widths {
		if !keep[i] {
			continue
		}
		if columns[i].wrap {
			w = min(w, leastWrap)
		}
		sum += w + len(gap)
	}
	return sum
}

// cells writes one row.
func (s *sheet) cells(columns []column, widths []int, keep []bool, cells []string) {
	wrapped := make([][]string, len(cells))
	lines := 1
	for i, cell := range cells {
		wrapped[i] = []string{cell}
		if columns[i].wrap {
			wrapped[i] = wrap(cell, widths[i])
		}
		if keep[i] {
			lines = max(lines, len(wrapped[i]))
		}
	}
	for n := range lines {
		var b strings.Builder
		for i := range cells {
			if !keep[i] {
				continue
			}
			text := ""
			if n < len(wrapped[i]) {
				text = wrapped[i][n]
			}
			if columns[i].right {
				text = strings.Repeat(" ", max(0, widths[i]-width(text))) + text
			}
			b.WriteString(pad(text, widths[i]) + gap)
		}
		s.out.WriteString(strings.TrimRight(b.String(), " ") + "\n")
	}
}

// records writes the rows one below the other: what a table does where it has no space.
func (s *sheet) records(columns []column, rows []row, keep []bool) {
	for i, r := range rows {
		if i > 0 {
			s.blank()
		}
		var list []field
		for j, c := range columns {
			if keep[j] {
				list = append(list, field{c.head, r.cells[j]})
			}
		}
		s.fields(list)
		for _, note := range r.notes {
			s.line(note, 4)
		}
	}
}

// pad fills a text with blanks; one that is too long is cut.
func pad(text string, to int) string {
	if n := width(text); n > to {
		return string([]rune(text)[:max(0, to-1)]) + "…"
	}
	return text + strings.Repeat(" ", to-width(text))
}

// wrap cuts a text into lines at blanks, and within words that are longer than a line.
func wrap(text string, to int) []string {
	to = max(to, 1)
	var lines []string
	for paragraph := range strings.SplitSeq(text, "\n") {
		current := ""
		for word := range strings.FieldsSeq(paragraph) {
			switch {
			case current == "":
				current = word
			case width(current)+1+width(word) <= to:
				current += " " + word
			default:
				lines = append(lines, current)
				current = word
			}
			if width(current) > to {
				var full []string
				full, current = chop(current, to)
				lines = append(lines, full...)
			}
		}
		lines = append(lines, current)
	}
	return lines
}

// chop cuts a word into full lines and a rest.
func chop(word string, to int) (full []string, rest string) {
	r := []rune(word)
	for len(r) > to {
		full = append(full, string(r[:to]))
		r = r[to:]
	}
	return full, string(r)
}

// clean keeps a text on its line, except for line breaks of its own, and away from the terminal's controls.
func clean(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = strings.ToValidUTF8(printable(lines[i]), "?")
	}
	return strings.Join(lines, "\n")
}
