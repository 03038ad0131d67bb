package console

import (
	"fmt"
	"io"

	"github.com/pgmoneta/pgmoneta-go/internal/mgmt"
)

// A Format is a way to print a response.
type Format int

// The formats. Their numbers are those of [mgmt.Output].
const (
	Text Format = Format(mgmt.OutputText)
	JSON Format = Format(mgmt.OutputJSON)
	Raw  Format = Format(mgmt.OutputRaw)

	// Table is for people at a terminal, see [RenderTable]. No daemon knows of it.
	Table Format = 3
)

// Output is what a daemon is told.
func (f Format) Output() mgmt.Output {
	if f == Table {
		return mgmt.OutputText
	}
	return mgmt.Output(f)
}

// ParseFormat reads the word of an option.
func ParseFormat(word string) (Format, error) {
	switch word {
	case "text":
		return Text, nil
	case "json":
		return JSON, nil
	case "raw":
		return Raw, nil
	case "table":
		return Table, nil
	default:
		return 0, fmt.Errorf("format %q: want table, text, json or raw", word)
	}
}

// Render prints a response in one write. It does not change doc.
func Render(w io.Writer, doc mgmt.Document, format Format) error {
	switch format {
	case Raw:
		return renderJSON(w, doc)
	case JSON:
		return renderJSON(w, translate(doc))
	default:
		return renderText(w, translate(doc))
	}
}

func renderJSON(w io.Writer, doc mgmt.Document) error {
	out, err := doc.AppendIndent(nil)
	if err != nil {
		return err
	}
	_, err = w.Write(append(out, '\n'))
	return err
}

func renderText(w io.Writer, doc mgmt.Document) error {
	var t textWriter
	if len(doc) == 0 {
		t.out = append(t.out, "{}\n"...)
	}
	t.members(doc, 0, false)
	_, err := w.Write(t.out)
	return err
}
