package console

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/pgmoneta/pgmoneta-go/internal/mgmt"
)

// RenderTable prints a response for people: the facts of its command with names and units, lists as tables, no line
// longer than columns. Moments are UTC, as labels of backups are. Of a refusal it prints what was found, if anything:
// the reason is an error, which the caller tells. It does not change doc.
func RenderTable(w io.Writer, doc mgmt.Document, columns int) error {
	doc = doc.Clone()
	s := &sheet{width: max(columns, 20)}
	number, _ := doc.Object("Header").Integer("Command")
	resp := doc.Object("Response")
	switch {
	case !doc.Outcome().Status && bare(resp):
	case resp == nil:
		s.line(nothingToShow, 0)
	default:
		s.view(viewOf(mgmt.Command(number)), resp)
	}
	_, err := io.WriteString(w, s.out.String())
	return err
}

// bare reports whether a refusal holds nothing but what was asked for.
func bare(resp mgmt.Document) bool {
	for key := range resp {
		if key != "Server" && key != "Backup" && !slices.Contains(common(), key) {
			return false
		}
	}
	return true
}

// nothingToShow is said of a success that has no more to tell.
const nothingToShow = "done"

// A view says how an object is shown: some members first and in order, others never, the rest by their names.
type view struct {
	title  func(d mgmt.Document) string
	facts  []fact
	hidden []string // members that are not shown; those that facts and lists name are not shown twice
	lists  []list
	only   bool // nothing but what is named
}

// A fact is one line, made of one or more members.
type fact struct {
	name    string
	show    func(d mgmt.Document) string // "" leaves the line out
	members []string                     // which it covers
}

// A list is a member that is an array of objects.
type list struct {
	in     string // the member that is the object it is in, "" for the one that is shown
	member string
	title  string
	empty  string // what is said of an empty one
	cells  []cell
	notes  func(d mgmt.Document) []string
	each   *view // instead of cells: every element is shown as an object
}

// A cell is a column with what stands in it.
type cell struct {
	column
	show func(d mgmt.Document) string
}

// view shows an object.
func (s *sheet) view(v *view, d mgmt.Document) {
	before := s.out.Len()
	if v.title != nil && v.title(d) != "" {
		s.line(v.title(d), 0)
	}
	s.facts(v, d)
	for _, l := range v.lists {
		s.list(l, d)
	}
	if !v.only {
		s.others(v, d)
	}
	if s.out.Len() == before {
		s.line(nothingToShow, 0)
	}
}

func (s *sheet) facts(v *view, d mgmt.Document) {
	var fields []field
	for _, f := range v.facts {
		fields = append(fields, field{f.name, f.show(d)})
	}
	if !v.only {
		for _, key := range slices.Sorted(maps.Keys(d)) {
			if isScalar(d[key]) && !v.covers(key) {
				fields = append(fields, field{title(key), show(d[key])})
			}
		}
	}
	s.fields(fields)
}

// covers reports whether a member is shown, or hidden, by name.
func (v *view) covers(key string) bool {
	if slices.Contains(v.hidden, key) || slices.ContainsFunc(v.lists, func(l list) bool { return l.member == key }) {
		return true
	}
	return slices.ContainsFunc(v.facts, func(f fact) bool { return slices.Contains(f.members, key) })
}

func isScalar(v any) bool {
	switch v := v.(type) {
	case mgmt.Document:
		_, coded := v["string_value"].(string) // a setting
		return coded
	case []any:
		return false
	}
	return true
}

// list shows a member that is an array.
func (s *sheet) list(l list, d mgmt.Document) {
	if l.in != "" {
		d = d.Object(l.in)
	}
	var elements []mgmt.Document
	for _, e := range d.List(l.member) {
		if element, ok := e.(mgmt.Document); ok {
			elements = append(elements, element)
		}
	}
	if len(elements) == 0 {
		if _, there := d[l.member]; there && l.empty != "" {
			s.blank()
			s.line(l.empty, 0)
		}
		return
	}
	if l.each != nil {
		for _, e := range elements {
			s.blank()
			s.view(l.each, e)
		}
		return
	}
	s.blank()
	if l.title != "" {
		s.line(l.title+":", 0)
	}
	columns, rows := make([]column, len(l.cells)), make([]row, len(elements))
	for i, c := range l.cells {
		columns[i] = c.column
	}
	for i, e := range elements {
		for _, c := range l.cells {
			rows[i].cells = append(rows[i].cells, c.show(e))
		}
		if l.notes != nil {
			rows[i].notes = l.notes(e)
		}
	}
	s.table(columns, rows)
}

// others shows the containers that no list names.
func (s *sheet) others(v *view, d mgmt.Document) {
	for _, key := range slices.Sorted(maps.Keys(d)) {
		if isScalar(d[key]) || v.covers(key) {
			continue
		}
		switch value := d[key].(type) {
		case mgmt.Document:
			if len(value) == 0 {
				continue
			}
			s.blank()
			s.line(title(key)+":", 0)
			s.view(&view{}, value)
		case []any:
			s.any(key, value)
		}
	}
}

// any shows an array that nobody described.
func (s *sheet) any(key string, values []any) {
	if len(values) == 0 {
		return
	}
	s.blank()
	s.line(title(key)+":", 0)
	for i, v := range values {
		if d, ok := v.(mgmt.Document); ok {
			if i > 0 {
				s.blank()
			}
			s.view(&view{}, d)
			continue
		}
		s.line(show(v), 2)
	}
}

// title turns the name of a member into words: NumberOfBackups into "Number of backups". Keys of the configuration stay.
func title(key string) string {
	runes := []rune(printable(key))
	if len(runes) == 0 || !unicode.IsUpper(runes[0]) {
		return string(runes)
	}
	var b strings.Builder
	for i, r := range runes {
		begins := i > 0 && unicode.IsUpper(r) && unicode.IsLower(runes[i-1])
		acronym := i+1 < len(runes) && unicode.IsUpper(r) && unicode.IsUpper(runes[i+1]) || i+1 == len(runes)
		if begins {
			b.WriteByte(' ')
			if !acronym {
				r = unicode.ToLower(r)
			}
		}
		b.WriteRune(r)
	}
	return b.String()
}

// show returns the text of any value.
func show(v any) string {
	switch v := v.(type) {
	case bool:
		return yesNo(v)
	case float64:
		return fmt.Sprintf("%.3g", v)
	case string:
		return clean(v)
	case mgmt.Document:
		if text, ok := v["string_value"].(string); ok {
			return clean(text)
		}
	}
	return scalar(v)
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// humanSize prints bytes with the unit that leaves three digits before the point at most, in powers of 1,024: "1.2 GB".
func humanSize(bytes float64) string {
	units := []string{"B", "kB", "MB", "GB", "TB", "PB"}
	i := 0
	for bytes >= 999.95 && i < len(units)-1 {
		bytes /= 1024
		i++
	}
	if i == 0 {
		return fmt.Sprintf("%.0f B", bytes)
	}
	return fmt.Sprintf("%.1f %s", bytes, units[i])
}

// humanDuration prints a time as people say it: "3 min 20 s".
func humanDuration(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
	default:
		return fmt.Sprintf("%d d %d h", int(d.Hours())/24, int(d.Hours())%24)
	}
}
