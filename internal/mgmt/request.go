package mgmt

import (
	"errors"
	"fmt"
	"maps"
	"time"
)

// A Request is what one client asked for. It is not changed after it was read.
type Request struct {
	Command Command
	Header  Document // as received, nil when the client sent none
	Args    Document // member Request, nil when the client sent none

	received Document // echoed in the response
}

// Server returns the name of the server the request is about, "" when it names none.
func (r *Request) Server() string { return r.Args.Text("Server") }

// Backup returns the backup identifier of the request: a label, a keyword or "".
func (r *Request) Backup() string { return r.Args.Text("Backup") }

// A Response holds the members of Response for a request that succeeded. ServerVersion is added by the server.
type Response = Document

// newRequest reads a decoded document. A command that is absent, no number or not known is returned as an error
// beside the request, whose document is echoed.
func newRequest(doc Document) (*Request, error) {
	req := &Request{Header: doc.Object("Header"), Args: doc.Object("Request"), received: doc}
	n, ok := req.Header.Integer("Command")
	if !ok {
		return req, unknownCommand(errors.New("Header.Command is missing or not a number"))
	}
	req.Command = Command(n)
	if !req.Command.Known() {
		return req, unknownCommand(fmt.Errorf("no command has the number %d", n))
	}
	return req, nil
}

func unknownCommand(err error) error {
	return &Error{Code: CodeUnknownCommand, Err: err}
}

func badPayload(err error) error {
	return &Error{Code: CodeBadPayload, Err: err}
}

// success builds the response of a request that succeeded.
func (r *Request) success(resp Response, version string, elapsed time.Duration) Document {
	doc := r.echo()
	doc["Outcome"] = Document{"Status": true, "Time": formatElapsed(elapsed)}
	if r.Command.silent() {
		return doc
	}
	members := Document{}
	maps.Copy(members, resp)
	members["ServerVersion"] = version
	doc["Response"] = members
	return doc
}

// failure builds the response of a request that failed; r is nil when there was no document.
func (r *Request) failure(e *Error, version string) Document {
	doc := r.echo()
	doc["Outcome"] = e.outcome()

	members := Document{"Server": nil}
	if r != nil {
		members["Server"] = r.Server()
	}
	if e.Server != "" {
		members["Server"] = e.Server
	}
	maps.Copy(members, e.Response)
	members["ServerVersion"] = version
	doc["Response"] = members
	return doc
}

// echo copies what the client sent, except the members only a server writes.
func (r *Request) echo() Document {
	doc := Document{}
	if r != nil {
		maps.Copy(doc, r.received)
	}
	delete(doc, "Outcome")
	delete(doc, "Response")
	return doc
}

// formatElapsed prints d as HH:MM:S.ffff, the seconds unpadded.
func formatElapsed(d time.Duration) string {
	const unit = 100 * time.Microsecond
	n := max(d.Round(unit), 0) / unit
	hours, n := n/36_000_000, n%36_000_000
	minutes, n := n/600_000, n%600_000
	return fmt.Sprintf("%02d:%02d:%d.%04d", hours, minutes, n/10_000, n%10_000)
}

// An Outcome is the verdict of a response.
type Outcome struct {
	Status       bool
	Time         string   // of a success, HH:MM:S.ffff
	Code         Code     // of a failure
	Workflow     string   // of a failure: the part that failed
	Message      string   // of a failure: the reason; servers before this program send none
	WorkerErrors []string // of a failure: what parallel workers reported
}

// Outcome returns the verdict of a response. A document without one failed without a code.
func (d Document) Outcome() Outcome {
	o := d.Object("Outcome")
	code, _ := o.Integer("Error")
	out := Outcome{
		Status:   o.Bool("Status"),
		Time:     o.Text("Time"),
		Code:     Code(code),
		Workflow: o.Text("Workflow"),
		Message:  o.Text("Message"),
	}
	for _, v := range o.List("WorkerErrors") {
		if s, ok := v.(string); ok {
			out.WorkerErrors = append(out.WorkerErrors, s)
		}
	}
	return out
}

// Err returns nil for a success and an [*Error] for a failure.
func (o Outcome) Err() error {
	if o.Status {
		return nil
	}
	e := &Error{Code: o.Code, Workflow: o.Workflow, WorkerErrors: o.WorkerErrors}
	if o.Message != "" {
		e.Err = errors.New(o.Message)
	}
	return e
}

// outcome writes what Document.Outcome reads. Message is an addition to the protocol that old clients pass over.
func (e *Error) outcome() Document {
	o := Document{"Status": false, "Error": int64(e.Code), "Workflow": e.workflow()}
	if e.Err != nil {
		o["Message"] = e.Err.Error()
	}
	if len(e.WorkerErrors) > 0 {
		o["WorkerErrors"] = e.WorkerErrors
	}
	return o
}
