package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/version"
)

// document is the answer to a command. The order of the fields is that of the output.
type document struct {
	Header   header
	Outcome  any
	Response *response `json:",omitempty"`
}

type header struct {
	ClientVersion string
	Command       int
	Compression   int
	Encryption    int
	Output        int
	Timestamp     string
}

type success struct {
	Status bool
	Time   string
}

type failed struct {
	Error    int
	Status   bool
	Workflow string
}

type response struct{ Users any }

// newDocument returns the document of a command. users are those the command touched or listed.
func newDocument(cmd command, asJSON bool, start time.Time, elapsed time.Duration, ok bool, users []string) document {
	d := document{
		Header:  header{ClientVersion: version.Version, Command: cmd.code, Timestamp: start.Format("20060102150405")},
		Outcome: failed{1, false, "admin"},
	}
	if asJSON {
		d.Header.Output = 1
	}
	if !ok {
		return d
	}
	d.Outcome = success{true, formatElapsed(elapsed)}
	if cmd.needFile {
		d.Response = &response{users}
		if len(users) == 0 {
			// C pgmoneta writes an empty list as an empty object.
			d.Response.Users = struct{}{}
		}
	}
	return d
}

// formatElapsed returns hours, minutes and seconds as C pgmoneta does: 00:00:0.3369.
func formatElapsed(d time.Duration) string {
	hours, minutes := d/time.Hour, d%time.Hour/time.Minute
	return fmt.Sprintf("%02d:%02d:%.4f", hours, minutes, (d % time.Minute).Seconds())
}

func (d document) write(w io.Writer, asJSON bool) error {
	var b bytes.Buffer
	if asJSON {
		encoder := json.NewEncoder(&b)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(d); err != nil {
			return err
		}
	} else {
		d.writeText(&b)
	}
	_, err := w.Write(b.Bytes())
	return err
}

func (d document) writeText(b *bytes.Buffer) {
	h := d.Header
	fmt.Fprintf(b, "Header:\n  ClientVersion: %s\n  Command: %d\n  Compression: %d\n  Encryption: %d\n  Output: %d\n  Timestamp: %s\n",
		h.ClientVersion, h.Command, h.Compression, h.Encryption, h.Output, h.Timestamp)
	switch o := d.Outcome.(type) {
	case success:
		fmt.Fprintf(b, "Outcome:\n  Status: %t\n  Time: %s\n", o.Status, o.Time)
	case failed:
		fmt.Fprintf(b, "Outcome:\n  Error: %d\n  Status: %t\n  Workflow: %s\n", o.Error, o.Status, o.Workflow)
	}
	if d.Response == nil {
		return
	}
	users, some := d.Response.Users.([]string)
	if !some {
		b.WriteString("Response:\n  Users: {}\n")
		return
	}
	b.WriteString("Response:\n  Users:\n")
	for _, u := range users {
		fmt.Fprintf(b, "    - %s\n", u)
	}
}
