package logging

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/shmem"
)

const (
	stressWriters = 4
	stressLines   = 25_000
)

// shared are the options of all processes of the stress test.
func shared(dir string, seg *shmem.Segment) Options {
	return Options{Kind: File, Path: filepath.Join(dir, "log-%H%M%S-%f"), RotationSize: 256 << 10, RotationAge: 100 * time.Millisecond,
		Turn: seg.LogTurn(), Count: seg.CountLog}
}

// stress plays a worker: it logs to the file and the segment that it inherited.
func stress(name string) {
	seg, err := shmem.Open(os.NewFile(4, "segment"))
	if err != nil {
		panic(err)
	}
	log := Join(os.NewFile(3, "log"), shared(os.Getenv("LOGGING_TEST_DIR"), seg))
	for i := range stressLines {
		log.Info("one line of many", "server", name, "line", i)
	}
}

// TestProcessesRotateTogether lets several processes write 100,000 lines while they change files all the time: every line is there once,
// whole, and as documented.
func TestProcessesRotateTogether(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	seg, err := shmem.Create(shmem.Capacity{Servers: 1, Jobs: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer seg.Close()
	log := openTest(t, shared(dir, seg))
	var workers []*exec.Cmd
	for i := range stressWriters {
		file, err := log.File()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = []string{fmt.Sprintf("LOGGING_TEST_STRESS=w%d", i), "LOGGING_TEST_DIR=" + dir}
		cmd.ExtraFiles = []*os.File{file, seg.File()}
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		_ = file.Close()
		workers = append(workers, cmd)
	}
	ours := 0
	done := make(chan error)
	go func() {
		var errs []error
		for _, cmd := range workers {
			errs = append(errs, cmd.Wait())
		}
		done <- errors.Join(errs...)
	}()
	for waiting := true; waiting; {
		select {
		case err := <-done:
			if waiting = false; err != nil {
				t.Fatal(err)
			}
		default:
			log.Warn("one line of many", "server", "supervisor", "line", ours)
			ours++
		}
	}

	pattern := regexp.MustCompile(`^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (TRACE|DEBUG|INFO |WARN |ERROR|FATAL) \w+\.go:\d+ one line of many server=(\w+) line=(\d+)$`)
	files, err := filepath.Glob(filepath.Join(dir, "log-*"))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	total := 0
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			m := pattern.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
			if m == nil || !strings.HasSuffix(line, "\n") {
				t.Fatalf("%s has the line %q", name, line)
			}
			seen[m[2]+" "+m[3]]++
			total++
		}
	}
	if want := stressWriters*stressLines + ours; total != want || len(seen) != want {
		t.Errorf("%d lines, %d different ones, want %d", total, len(seen), want)
	}
	if got := seg.LogCounter(LevelInfo).Load(); got != stressWriters*stressLines {
		t.Errorf("%d lines were counted", got)
	}
	if len(files) < 10 {
		t.Errorf("%d files only", len(files))
	}
	t.Logf("%d lines in %d files", total, len(files))
}

func TestReopenReachesTheOthers(t *testing.T) {
	t.Parallel()
	seg, err := shmem.Create(shmem.Capacity{Servers: 1, Jobs: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer seg.Close()
	path := filepath.Join(t.TempDir(), "log")
	o := Options{Kind: File, Path: path, Turn: seg.LogTurn()}
	log := openTest(t, o)
	file, err := log.File()
	if err != nil {
		t.Fatal(err)
	}
	worker := Join(file, o)
	defer worker.Close()
	worker.Info("before")
	if err := os.Rename(path, path+".1"); err != nil { // as logrotate does
		t.Fatal(err)
	}
	if err := log.Reopen(); err != nil {
		t.Fatal(err)
	}
	worker.Info("after")
	for name, want := range map[string]string{path + ".1": "before", path: "after"} {
		if b, err := os.ReadFile(name); err != nil || strings.Count(string(b), "\n") != 1 || !strings.Contains(string(b), want) {
			t.Errorf("%s has %q, %v", filepath.Base(name), b, err)
		}
	}
}

// position is a value that has a text of its own.
type position uint64

func (p position) String() string { return fmt.Sprintf("%X/%X", uint64(p)>>32, uint32(p)) }

func TestJSONLines(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	counted := 0
	log := New(&b, Options{Kind: JSON, Level: LevelTrace, Count: func(slog.Level) { counted++ }}).With("server", "a\nb")
	log.Warn("timeline\nswitch", "lsn", position(1<<32), "err", errors.New("no \xff"), "elapsed", 1500*time.Millisecond, "n", 3)
	log.WithGroup("g").Log(t.Context(), LevelTrace, "small", "k", "v")
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	if len(lines) != 2 || counted != 1 {
		t.Fatalf("%d lines, %d counted: %s", len(lines), counted, b.String())
	}
	var got map[string]any
	if err := json.Unmarshal([]byte(lines[0]), &got); err != nil {
		t.Fatal(err)
	}
	at, err := time.Parse(time.RFC3339Nano, got["time"].(string))
	if err != nil || time.Since(at) > time.Minute || !strings.HasSuffix(got["time"].(string), "Z") {
		t.Errorf("time %v: %v", got["time"], err)
	}
	for key, want := range map[string]any{"level": "WARN", "msg": "timeline\nswitch", "server": "a\nb", "lsn": "1/0", "err": "no \uFFFD", "elapsed": "1.5s", "n": 3.0} {
		if got[key] != want {
			t.Errorf("%s is %#v, want %#v", key, got[key], want)
		}
	}
	if source, _ := got["source"].(string); !strings.HasPrefix(source, "share_test.go:") {
		t.Errorf("source is %v", got["source"])
	}
	if !strings.Contains(lines[1], `"level":"TRACE"`) || !strings.Contains(lines[1], `"g":{"k":"v"}`) {
		t.Errorf("line %s", lines[1])
	}
}
