package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/console"
	"github.com/pgmoneta/pgmoneta-go/internal/job"
	"github.com/pgmoneta/pgmoneta-go/internal/mgmt"
)

var update = flag.Bool("update", false, "rewrite the scripts with what the program prints now")

// fakeDaemon knows the server "primary" and answers with as little as possible.
type fakeDaemon struct {
	cancelled atomic.Bool   // whether the job of "slow" was
	asked     atomic.Int64  // how often somebody wanted to know how far it is
	hold      chan struct{} // what backup of server "slow" waits for
}

func (d *fakeDaemon) Handle(_ context.Context, req *mgmt.Request) (mgmt.Response, error) {
	switch req.Command {
	case mgmt.ConfGet:
		return mgmt.Response{
			"compression": mgmt.Document{"string_value": "zstd", "value": 18},
			"host":        "localhost",
			"server":      mgmt.Document{"primary": mgmt.Document{"port": 5432}},
		}, nil
	case mgmt.ConfSet:
		return confSetResponse(req)
	case mgmt.WALCheck:
		return walCheckResponse(req)
	}
	switch req.Server() {
	case "slow":
		if req.Command == mgmt.Backup {
			<-d.hold
		}
		d.cancelled.Store(req.Args.Bool("Cancel"))
		if req.Command == mgmt.Progress {
			return d.progress(req), nil
		}
	case "nosuch":
		return nil, &mgmt.Error{Code: req.Command.Codes().NoServer, Err: errors.New(`no server "nosuch": see status`)}
	case "old":
		return nil, &mgmt.Error{Code: mgmt.CodeBackupActive, Workflow: "Backup"} // as 0.22, without a reason
	}
	return mgmt.Response{}, nil
}

// progress tells of the job of "slow": first it waits, then half of it is done.
func (d *fakeDaemon) progress(req *mgmt.Request) mgmt.Response {
	if d.asked.Add(1) == 1 || req.Args.Text("Ticket") == "" {
		return mgmt.Response{"ProgressState": 0, "State": "queued"}
	}
	return mgmt.Response{"ProgressState": 1, "State": "running", "Kind": "backup", "Phase": "Backup", "Done": 1 << 30, "Total": 2 << 30}
}

// walCheckResponse finds a hole in the WAL of server "holes".
func walCheckResponse(req *mgmt.Request) (mgmt.Response, error) {
	r := &job.WALReport{Deep: !req.Args.Bool("Quick"), SegmentSize: 16 << 20, Segments: 7, Partial: 1, Stored: 1 << 20,
		Ranges: []job.WALRange{{Timeline: 1, From: 0x3000000, To: 0xA0000D8, Segments: 8}}}
	if req.Server() == "holes" {
		r.Total, r.Holes, r.New = 1, 1, 1
		r.Findings = []job.WALFinding{{Kind: "missing", Timeline: 1, From: 0xA000000, To: 0xC000000, Segment: "00000001000000000000000A",
			Message: "2 WAL segments are missing", Text: "missing: timeline 1 from 0/A000000 to 0/C000000: 2 WAL segments are missing", Recorded: true}}
	}
	return mgmt.AnswerWALCheck(req.Server(), r)
}

func confSetResponse(req *mgmt.Request) (mgmt.Response, error) {
	if req.Args.Text("ConfigKey") != "log_level" {
		return nil, &mgmt.Error{Code: mgmt.CodeConfSetOther, Workflow: "configuration", Err: errors.New("key is not known")}
	}
	return mgmt.Response{"config_key": "log_level", "old_value": "3", "new_value": "2", "status": "success", "restart_required": false}, nil
}

// startDaemon serves d below dir until the test ends and writes the configuration cli.conf.
func startDaemon(t *testing.T, dir string, d *fakeDaemon) (conf string) {
	t.Helper()
	ln, err := mgmt.Listen(filepath.Join(dir, mgmt.SocketName))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	opt := mgmt.Options{Version: "0.22.0", Now: clock}
	go func() { served <- mgmt.NewServer(d, opt).Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("Serve = %v", err)
		}
	})
	conf = filepath.Join(dir, "cli.conf")
	writeFile(t, conf, "[pgmoneta]\nunix_socket_dir = "+dir+"\n")
	return conf
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func clock() time.Time { return time.Date(2026, 11, 21, 12, 39, 0, 0, time.UTC) }

func noEnv(string) (string, bool) { return "", false }

// TestScripts runs the commands of testdata/script and compares with the output that stands below each.
// "! " begins a line of standard error; "? n" gives the exit status unless it is 0; DIR is the directory of the test.
func TestScripts(t *testing.T) {
	t.Parallel()
	scripts, err := filepath.Glob("testdata/script/*.txt")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("scripts: %v, %v", scripts, err)
	}
	for _, path := range scripts {
		t.Run(filepath.Base(path), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			startDaemon(t, dir, &fakeDaemon{})
			writeFile(t, filepath.Join(dir, "json.conf"), "unix_socket_dir = "+dir+"\noutput = json\nencryption = aes256\n")
			writeFile(t, filepath.Join(dir, "away.conf"), "unix_socket_dir = "+dir+"/away\n")
			writeFile(t, filepath.Join(dir, "remote.conf"), "host = db1\nport = 5002\n")
			writeFile(t, filepath.Join(dir, "daemon.conf"), "[pgmoneta]\nhost = localhost\nbase_dir = "+dir+"/base\nunix_socket_dir = "+dir+
				"\n\n[primary]\nhost = localhost\nport = 5432\nuser = repl\nwal_slot = repl\n")

			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			got := transcript(t, dir, string(want))
			if *update {
				writeFile(t, path, got)
				return
			}
			if got != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// transcript runs the commands of a script and returns it with their present output.
func transcript(t *testing.T, dir, script string) string {
	t.Helper()
	var out strings.Builder
	for line := range strings.Lines(script) {
		if strings.HasPrefix(line, "#") {
			out.WriteString(line)
		}
		command, ok := strings.CutPrefix(line, "$ pgmoneta-cli")
		if !ok {
			continue
		}
		var stdout, stderr bytes.Buffer
		p := &program{stdin: strings.NewReader(""), stdout: &stdout, stderr: &stderr, env: noEnv, defaultDir: filepath.Join(dir, "etc"), now: clock}
		args := split(strings.ReplaceAll(strings.TrimSpace(command), "DIR", dir))
		status := p.run(context.Background(), args)

		out.WriteString(line)
		text := stdout.String()
		if !slices.Contains(args, "--help") {
			text = strings.ReplaceAll(text, usage(), "(as --help)\n")
		}
		out.WriteString(text)
		for line := range strings.Lines(stderr.String()) {
			out.WriteString("! " + line)
		}
		if status != 0 {
			fmt.Fprintf(&out, "? %d\n", status)
		}
		out.WriteString("\n")
	}
	return strings.ReplaceAll(out.String(), dir, "DIR")
}

// split cuts a line at blanks, except between apostrophes.
func split(line string) []string {
	var args []string
	for i, part := range strings.Split(line, "'") {
		if i%2 == 1 {
			args = append(args, part)
		} else {
			args = append(args, strings.Fields(part)...)
		}
	}
	return args
}

func parse(line string) (*console.Args, error) { return console.ParseArgs(options(), split(line)) }

func TestRequestsOfAllForms(t *testing.T) {
	t.Parallel()
	tests := []struct {
		line string
		want string // command number and request as sent
	}{
		{"backup primary", `1 {"Backup":null,"Server":"primary"}`},
		{"backup primary newest", `1 {"Backup":"newest","Server":"primary"}`},
		{"backup --allow-corrupt primary", `1 {"AllowCorrupt":true,"Backup":null,"Server":"primary"}`},
		{"list-backup primary", `2 {"Server":"primary","Sort":"asc"}`},
		{"list-backup primary ignored --sort descending", `2 {"Server":"primary","Sort":"desc"}`},
		{"restore primary newest /tmp", `3 {"Backup":"newest","Directory":"/tmp","Position":null,"Server":"primary"}`},
		{"restore primary newest latest /tmp", `3 {"Backup":"newest","Directory":"/tmp","Position":"latest","Server":"primary"}`},
		{"restore --dry-run --exact --wal copy primary newest /tmp", `3 {"Backup":"newest","Directory":"/tmp","DryRun":true,"Exact":true,"Position":null,"Server":"primary","WAL":"copy"}`},
		{"restore --delta --workers 4 --max-rate 1m --tablespace a=/a --tablespace 5=/b primary newest /tmp", `3 {"Backup":"newest","Delta":true,"Directory":"/tmp","MaxRate":1048576,"Position":null,"Server":"primary","Tablespaces":["a=/a","5=/b"],"Workers":4}`},
		{"restore --tablespaces-in-place --waldir /w --owner postgres primary newest /tmp", `3 {"Backup":"newest","Directory":"/tmp","Owner":"postgres","Position":null,"Server":"primary","TablespacesInPlace":true,"WALDirectory":"/w"}`},
		{"archive primary newest current /tmp", `4 {"Backup":"newest","Directory":"/tmp","Position":"current","Server":"primary"}`},
		{"archive --plain primary newest /tmp", `4 {"Backup":"newest","Directory":"/tmp","Plain":true,"Position":null,"Server":"primary"}`},
		{"delete primary oldest", `5 {"Backup":"oldest","Force":false,"Server":"primary"}`},
		{"delete primary oldest --force", `5 {"Backup":"oldest","Force":true,"Server":"primary"}`},
		{"shutdown", `6 {}`},
		{"status", `7 {}`},
		{"status details", `8 {}`},
		{"ping", `9 {}`},
		{"clear prometheus", `10 {}`},
		{"conf reload", `11 {}`},
		{"retain primary newest", `12 {"Backup":"newest","Cascade":false,"Server":"primary"}`},
		{"expunge --cascade primary newest", `13 {"Backup":"newest","Cascade":true,"Server":"primary"}`},
		{"undelete primary newest", `312 {"Backup":"newest","Server":"primary"}`},
		{"retention --dry-run primary", `310 {"DryRun":true,"Server":"primary"}`},
		{"retention", `310 {"DryRun":false,"Server":null}`},
		{"schedule", `311 {"Server":null}`},
		{"decrypt f", `14 {"SourceFile":"f"}`},
		{"encrypt f", `15 {"SourceFile":"f"}`},
		{"decompress f", `16 {"SourceFile":"f"}`},
		{"compress f", `17 {"SourceFile":"f"}`},
		{"info primary newest", `18 {"Backup":"newest","Server":"primary"}`},
		{"verify primary newest /tmp", `19 {"Backup":"newest","Directory":"/tmp","Files":"failed","Server":"primary"}`},
		{"verify primary newest /tmp all", `19 {"Backup":"newest","Directory":"/tmp","Files":"all","Server":"primary"}`},
		{"annotate primary newest add key 'it is'", `20 {"Action":"add","Backup":"newest","Comment":"it is","Key":"key","Server":"primary"}`},
		{"annotate primary newest remove key", `20 {"Action":"remove","Backup":"newest","Comment":null,"Key":"key","Server":"primary"}`},
		{"conf ls", `21 {}`},
		{"conf get", `22 {}`},
		{"conf get host", `22 {}`},
		{"conf check", `305 {}`},
		{"conf rollback", `306 {}`},
		{"--save conf set log_level debug", `23 {"ConfigKey":"log_level","ConfigValue":"debug","Save":true}`},
		{"jobs", `304 {}`},
		{"--all jobs primary", `304 {"All":true,"Server":"primary"}`},
		{"cancel primary 7", `25 {"Cancel":true,"Command":"backup","Job":7,"Server":"primary"}`},
		{"cancel -", `25 {"Cancel":true,"Command":"backup"}`},
		{"cancel - 7", `25 {"Cancel":true,"Command":"backup","Job":7}`},
		{"--no-wait verify primary newest /x", `19 {"Backup":"newest","Directory":"/x","Files":"failed","NoWait":true,"Server":"primary"}`},
		{"conf set log_level debug", `23 {"ConfigKey":"log_level","ConfigValue":"debug"}`},
		{"mode primary offline", `24 {"Action":"offline","Server":"primary"}`},
		{"progress primary backup", `25 {"Command":"backup","Server":"primary"}`},
		{"cancel primary", `25 {"Cancel":true,"Command":"backup","Server":"primary"}`},
		{"wal check primary", `300 {"Quick":false,"Server":"primary"}`},
		{"wal check --quick primary", `300 {"Quick":true,"Server":"primary"}`},
		{"repo check primary", `301 {"Mode":null,"Server":"primary"}`},
		{"repo check primary fast", `301 {"Mode":"fast","Server":"primary"}`},
		{"repo stats primary", `302 {"Server":"primary"}`},
		{"retention", `310 {"DryRun":false,"Server":null}`},
		{"retention --dry-run primary", `310 {"DryRun":true,"Server":"primary"}`},
		{"schedule", `311 {"Server":null}`},
		{"rehearse primary", `303 {"Backup":null,"Position":null,"Server":"primary"}`},
		{"rehearse primary newest time=now", `303 {"Backup":"newest","Position":"time=now","Server":"primary"}`},
		{"completion bash", `0 {}`},
		{"s3 ls primary", `200 {"Server":"primary"}`},
		{"s3 ls primary p", `200 {"S3Prefix":"p","Server":"primary"}`},
		{"s3 restore primary p /tmp", `201 {"Directory":"/tmp","Position":null,"S3Prefix":"p","Server":"primary"}`},
	}
	covered := map[mgmt.Command]bool{}
	for _, tt := range tests {
		parsed, err := parse(tt.line)
		if err != nil {
			t.Fatal(err)
		}
		f, words, usage := match(parsed.Words)
		if usage != nil {
			t.Errorf("%s: %v", tt.line, usage)
			continue
		}
		covered[f.command] = true
		body, err := call{form: f, words: words, options: parsed}.args().Append(nil)
		if got := fmt.Sprintf("%d %s", int(f.command), body); err != nil || got != tt.want {
			t.Errorf("%s sends %s, %v, want %s", tt.line, got, err, tt.want)
		}
	}
	for _, f := range forms() {
		if !covered[f.command] {
			t.Errorf("no line tests %s", f.name())
		}
	}
}

// TestOptionsBelongToCommands keeps completion from offering an option where there is no such command.
func TestOptionsBelongToCommands(t *testing.T) {
	t.Parallel()
	known := map[string]bool{}
	for _, f := range forms() {
		known[f.name()] = true
	}
	for _, g := range commandLine().Groups {
		for _, o := range g.Options {
			for _, name := range o.For {
				if !known[name] {
					t.Errorf("%s is for %q, which is no command", o.Long, name)
				}
			}
		}
	}
}

func TestConfigurationDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	startDaemon(t, dir, &fakeDaemon{})
	// The daemon's own file serves as well: host and port in it are not a remote daemon.
	writeFile(t, filepath.Join(dir, "pgmoneta.conf"),
		"[pgmoneta]\nhost = *\nmetrics = 5001\nunix_socket_dir = "+dir+"\ncompression = zstd\nencryption = aes\n\n"+
			"[primary]\nhost = localhost\nport = 5432\nuser = repl\nwal_slot = repl\n")

	var stdout, stderr bytes.Buffer
	env := func(name string) (string, bool) { return dir, name == "PGMONETA_CONFIG_DIR" }
	p := &program{stdin: strings.NewReader(""), stdout: &stdout, stderr: &stderr, env: env, now: clock}
	if status := p.run(context.Background(), []string{"ping"}); status != 0 || !strings.Contains(stdout.String(), "Status: true") {
		t.Errorf("ping = %d\n%s%s", status, stdout.String(), stderr.String())
	}
}

func TestInterruptLeavesTheJobAlone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := &fakeDaemon{hold: make(chan struct{})}
	conf := startDaemon(t, dir, d)
	t.Cleanup(func() { close(d.hold) })

	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var stdout, stderr bytes.Buffer
	p := &program{stdin: strings.NewReader(""), stdout: &stdout, stderr: &stderr, env: noEnv, now: clock}
	conn := connection{socket: filepath.Join(filepath.Dir(conf), mgmt.SocketName)}
	parsed, err := parse("backup slow")
	if err != nil {
		t.Fatal(err)
	}
	f, words, _ := match(parsed.Words)
	client, err := mgmt.Dial(context.Background(), conn.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	if _, status := p.await(ctx, client, conn, call{form: f, words: words, options: parsed}); status != exitInterrupted {
		t.Errorf("status = %d, want %d", status, exitInterrupted)
	}
	if want := "pgmoneta-cli: interrupted: backup was cancelled\n"; stderr.String() != want || !d.cancelled.Load() {
		t.Errorf("stderr = %q, want %q; cancelled: %t", stderr.String(), want, d.cancelled.Load())
	}
}
