package mgmt

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
)

var update = flag.Bool("update", false, "rewrite the recordings with what client and server send now")

// A recording is one exchange: the bodies of request and response, whose frames are plain. Files of testdata/wire are
// named by the command and, after a dash, by what is special. What is said in them was said by C pgmoneta, as far as it
// was seen answering a command, and else by a daemon of this program; only paths are others. Which members
// pgmoneta-cli sends is tested there.
type recording struct {
	name              string
	request, response Document
}

func recordings(t *testing.T) []recording {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("testdata", "wire", "*.request.json"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("found %d recordings, %v", len(paths), err)
	}
	var all []recording
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), ".request.json")
		all = append(all, recording{name, decodeFile(t, name+".request.json"), decodeFile(t, name+".response.json")})
	}
	return all
}

func decodeFile(t *testing.T, name string) Document {
	t.Helper()
	doc, err := Decode([]byte(golden(t, name)))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return doc
}

func golden(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "wire", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// goldenNow is golden for a file that, if so asked, is what is sent now.
func goldenNow(t *testing.T, name, now string) string {
	t.Helper()
	if *update {
		if err := os.WriteFile(filepath.Join("testdata", "wire", name), []byte(now), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return golden(t, name)
}

func (r recording) command() Command {
	n, _ := r.request.Object("Header").Integer("Command")
	return Command(n)
}

// elapsed is what the server measured, as far as it tells.
func (r recording) elapsed(t *testing.T) time.Duration {
	t.Helper()
	text := r.response.Outcome().Time
	if text == "" {
		return 0
	}
	var hours, minutes, seconds, fraction time.Duration
	if _, err := fmt.Sscanf(text, "%d:%d:%d.%d", &hours, &minutes, &seconds, &fraction); err != nil {
		t.Fatalf("%s: time %q: %v", r.name, text, err)
	}
	return hours*time.Hour + minutes*time.Minute + seconds*time.Second + fraction*100*time.Microsecond
}

// answer is what a handler has to return for the response. The codes of the refusals that most commands share are
// those that it would find, not those recorded.
func (r recording) answer() (Response, error) {
	members := r.response.Object("Response").Clone()
	delete(members, "ServerVersion") // the server adds it
	err := r.response.Outcome().Err()
	if err == nil {
		return members, nil
	}
	var e *Error
	errors.As(err, &e)
	delete(members, "Server") // the server that was asked for
	e.Response = members
	switch _, what, _ := strings.Cut(r.name, r.command().dashed()+"-"); what {
	case "nosuch":
		e.Code = r.command().Codes().NoServer
	case "nobackup":
		e.Code = r.command().Codes().NoBackup
	case "nofile":
		e.Code, _ = r.command().FileCodes(container.Zstd)
	}
	return nil, e
}

// dashed is the command's word as in names of files.
func (c Command) dashed() string { return strings.ReplaceAll(c.String(), " ", "-") }

// TestResponsesMatchRecordedFrames replays the requests; the expected bytes are what a daemon answered.
func TestResponsesMatchRecordedFrames(t *testing.T) {
	t.Parallel()
	for _, r := range recordings(t) {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			answer := func(context.Context, *Request) (Response, error) { return r.answer() }
			path := start(t, answer, Options{Now: frozen(r.elapsed(t))})

			got := exchange(t, path, frame(golden(t, r.name+".request.json")))
			want := goldenNow(t, r.name+".response.json", string(got[headerSize:]))
			if string(got) != string(frame(want)) {
				t.Errorf("response\n%q\nwant\n%q", got, frame(want))
			}
		})
	}
}

func TestClientRequestMatchesRecordedFrames(t *testing.T) {
	t.Parallel()
	for _, r := range recordings(t) {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			header := r.request.Object("Header")
			stamp, err := time.Parse("20060102150405", header.Text("Timestamp"))
			if err != nil {
				t.Fatal(err)
			}
			output, _ := header.Integer("Output")
			c := &Client{Version: "0.22.0", Output: Output(output), Now: func() time.Time { return stamp }}
			got, err := newFrame(c.request(r.command(), r.request.Object("Request")), c.Coding, nil)
			if err != nil {
				t.Fatal(err)
			}
			want := goldenNow(t, r.name+".request.json", string(got[headerSize:]))
			if string(got) != string(frame(want)) {
				t.Errorf("request\n%q\nwant\n%q", got, frame(want))
			}
		})
	}
}

// TestRecordingsShowAllCommands wants a success and a refusal of each command.
func TestRecordingsShowAllCommands(t *testing.T) {
	t.Parallel()
	var succeeded, refused []Command
	for _, r := range recordings(t) {
		c := r.command()
		if r.name != c.dashed() && !strings.HasPrefix(r.name, c.dashed()+"-") {
			t.Errorf("%s is a recording of %s, want that as its name", r.name, c)
		}
		if r.response.Outcome().Status {
			succeeded = append(succeeded, c)
		} else {
			refused = append(refused, c)
		}
	}
	neverDone := []Command{S3Ls, S3Restore, ConfCheck} // not possible, or without a daemon only
	neverRefused := []Command{Shutdown, Ping, Reset, ConfLs, ConfGet}
	for n := range 400 {
		c := Command(n)
		if !c.Known() {
			continue
		}
		if !slices.Contains(succeeded, c) && !slices.Contains(neverDone, c) {
			t.Errorf("no recording shows a success of %s", c)
		}
		if !slices.Contains(refused, c) && !slices.Contains(neverRefused, c) {
			t.Errorf("no recording shows a refusal of %s", c)
		}
	}
}
