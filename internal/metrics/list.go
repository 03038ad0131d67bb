package metrics

import (
	"encoding/json"
	"fmt"
	"strings"
)

// A Family describes a metric on the page, for documents and for what checks rules against them.
type Family struct {
	Name   string   `json:"name"`
	Type   string   `json:"type"` // gauge, counter or histogram
	Help   string   `json:"help"`
	Labels []string `json:"labels"`
	Compat bool     `json:"compat"` // it is one of pgmoneta 0.22
}

// Families lists the metrics of this program in the order of the page, without those of the Go runtime.
func Families() []Family {
	var list []Family
	of022 := len(compat())
	for i, f := range families() {
		list = append(list, Family{Name: f.name, Type: string(f.kind), Help: f.help, Labels: append([]string{}, f.labels...), Compat: i < of022})
	}
	return list
}

// listJSON returns the list as doc/metrics.json.
func listJSON() string {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	_ = enc.Encode(Families()) // strings and booleans always can be
	return b.String()
}

// listMarkdown returns the list as doc/METRICS.md.
func listMarkdown() string {
	var b strings.Builder
	b.WriteString(`# Metrics

Made from the table in the program: do not edit. ` + "`go test ./internal/metrics -update` writes it, and `metrics.json` beside it, which is for programs" + `.

Durations are in seconds, sizes in bytes, times in seconds since 1970. A family without a sample for a server says that there is nothing to tell, or that it is not known.
`)
	for _, part := range []struct {
		title  string
		compat bool
	}{{"Families of this program", false}, {"Families of pgmoneta 0.22", true}} {
		fmt.Fprintf(&b, "\n## %s\n\n| name | labels | type | meaning |\n|---|---|---|---|\n", part.title)
		for _, f := range Families() {
			if f.Compat != part.compat {
				continue
			}
			var labels []string
			for _, l := range f.Labels {
				labels = append(labels, "`"+l+"`")
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", f.Name, strings.Join(labels, ", "), f.Type, strings.ReplaceAll(f.Help, "|", "\\|"))
		}
	}
	b.WriteString("\nBeside them the page has `go_*` and `process_*` of the supervisor, read at most once a second.\n")
	return b.String()
}
