package mgmt

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/job"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// RetentionDocument describes what the retention of a server decided.
func RetentionDocument(server string, r *job.RetentionReport) Document {
	rows, deleted := []Document{}, 0
	for _, d := range r.Decisions {
		action := "keep"
		if !d.Keep {
			action = "delete"
			if r.Delayed > 0 {
				action = "trash"
			}
			deleted++
		}
		rows = append(rows, Document{"Backup": string(d.Backup), "Action": action, "Reason": strings.Join(d.Reasons, "; ")})
	}
	refused := r.Refused
	if refused == nil {
		refused = []string{}
	}
	trash := []Document{}
	for _, w := range r.Trash {
		action := "wait"
		if w.Purge {
			action = "delete"
		}
		trash = append(trash, Document{"Backup": string(w.Backup), "Action": action, "Deleted": moment(w.DeletedAt), "Until": moment(w.Until)})
	}
	return Document{
		"Server": server, "Trash": trash, "PurgedBackups": r.Purges(), "Backups": rows, "NumberOfBackups": len(rows), "DeletedBackups": deleted, "DeletedSegments": r.Segments,
		"FreedSize": r.BackupBytes + r.WALBytes, "FreedBackupSize": r.BackupBytes, "FreedWALSize": r.WALBytes, "WALKept": r.WALKept, "Refused": refused,
		"WindowBefore": moment(r.Before.From), "WindowAfter": moment(r.After.From),
	}
}

func moment(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// CommentText returns comments in the form of pgmoneta 0.22: "key|text,key|text". It is
// nil for none.
func CommentText(list []repo.Comment) any {
	if len(list) == 0 {
		return nil
	}
	words := make([]string, len(list))
	for i, c := range list {
		words[i] = c.Key + "|" + c.Text
	}
	return strings.Join(words, ",")
}

// An Annotation is a change of the comments on a backup.
type Annotation struct {
	Action string // add, update or remove
	Key    string
	Text   string
}

// maxComment bounds the comments on one backup, as in pgmoneta 0.22.
const maxComment = 2047

// ParseAnnotation reads the request of [Annotate].
func ParseAnnotation(req *Request) (Annotation, error) {
	a := Annotation{req.Args.Text("Action"), req.Args.Text("Key"), req.Args.Text("Comment")}
	if !slices.Contains([]string{"add", "update", "remove"}, a.Action) {
		return a, &Error{Code: CodeAnnotateUnknownAction, Workflow: "annotate", Err: fmt.Errorf("action %q: want add, update or remove", a.Action)}
	}
	bad := func(format string, args ...any) (Annotation, error) {
		return a, &Error{Code: CodeAnnotateFailed, Workflow: "annotate", Err: fmt.Errorf(format, args...)}
	}
	switch {
	case a.Key == "":
		return bad("a comment needs a key")
	case strings.ContainsAny(a.Key, "|,=\n\r\x00") || strings.ContainsAny(a.Text, "|,\n\r\x00"):
		return bad("keys and comments cannot contain a comma, a vertical bar or a line break, and keys no equals sign")
	case a.Action != "remove" && a.Text == "":
		return bad("a comment is needed to %s %q", a.Action, a.Key)
	}
	return a, nil
}

// Apply changes a note.
func (a Annotation) Apply(n *repo.Note) error {
	i := slices.IndexFunc(n.Comments, func(c repo.Comment) bool { return c.Key == a.Key })
	switch {
	case a.Action == "add" && i >= 0:
		return fmt.Errorf("there is a comment %q already: update it", a.Key)
	case a.Action != "add" && i < 0:
		return fmt.Errorf("there is no comment %q", a.Key)
	case a.Action == "add":
		n.Comments = append(n.Comments, repo.Comment{Key: a.Key, Text: a.Text})
	case a.Action == "update":
		n.Comments[i].Text = a.Text
	default:
		n.Comments = slices.Delete(n.Comments, i, i+1)
	}
	if text, _ := CommentText(n.Comments).(string); len(text) > maxComment {
		return errors.New("the comments on a backup take at most 2,047 bytes")
	}
	return nil
}
