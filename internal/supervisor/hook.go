package supervisor

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/job"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// hooks are the programs around one job.
type hooks struct {
	first, last string // empty for none
	event       hookEvent
	log         func(msg string, args ...any)
}

// A hookEvent is what a hook is told, as JSON on its standard input and in its environment.
type hookEvent struct {
	Server  string     `json:"server"`
	Job     string     `json:"job"`
	When    string     `json:"when"`              // before or after
	Backup  repo.Label `json:"backup,omitempty"`  // taken, restored, verified, rehearsed or deleted; after only
	Outcome string     `json:"outcome,omitempty"` // done or failed; after only
	Error   string     `json:"error,omitempty"`
	Elapsed float64    `json:"elapsed,omitempty"` // seconds

	started time.Time
}

// hookTimeout is how long a hook may take.
const hookTimeout = 10 * time.Minute

// hooks returns those of a job. Jobs that change nothing and prove nothing have none.
func (s *Supervisor) hooks(v *server, kind job.Kind) *hooks {
	h := &hooks{event: hookEvent{Server: v.name, Job: string(kind), started: time.Now()}, log: v.log.Error}
	switch kind {
	case job.Backup, job.Restore, job.Verify, job.Delete, job.Rehearse, job.Retention:
	default:
		return h
	}
	c := s.config.Load()
	if sc, ok := c.Server(v.name); ok {
		h.first, h.last = c.HookBefore(sc), c.HookAfter(sc)
	}
	return h
}

// before runs the first hook. The job is not done when it fails.
func (h *hooks) before(ctx context.Context) error {
	if h.first == "" {
		return nil
	}
	e := h.event
	e.When = "before"
	if err := e.tell(ctx, h.first); err != nil {
		return fmt.Errorf("server %q: hook_before of the %s: %w", e.Server, e.Job, err)
	}
	return nil
}

// after runs the last hook, whatever became of the job. Its failure is only logged.
func (h *hooks) after(ctx context.Context, result job.Result, err error) {
	if h.last == "" {
		return
	}
	e := h.event
	e.When, e.Outcome, e.Elapsed = "after", "done", time.Since(e.started).Seconds()
	if err == nil && result.Failure != nil {
		err = result.Failure
	}
	if err == nil && len(result.Report) > 0 {
		err = fmt.Errorf("damaged: %s", result.Report[0])
	}
	if r := result.Rehearsal; err == nil && r != nil && !r.Proven() {
		err = fmt.Errorf("not proven: %s", r.Failure)
	}
	if err != nil {
		e.Outcome, e.Error = "failed", err.Error()
	}
	if result.Backup != nil {
		e.Backup = result.Backup.Label
	}
	if err := e.tell(context.WithoutCancel(ctx), h.last); err != nil {
		h.log("hook_after", "job", e.Job, "err", err)
	}
}

// tell runs a program and waits for it.
func (e hookEvent) tell(ctx context.Context, program string) error {
	ctx, cancel := context.WithTimeout(ctx, hookTimeout)
	defer cancel()
	input, err := json.Marshal(e)
	if err != nil {
		return err
	}
	var out beginning
	cmd := exec.CommandContext(ctx, program)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(append(input, '\n')), &out, &out
	cmd.WaitDelay = time.Second
	cmd.Env = append(os.Environ(), "PGMONETA_SERVER="+e.Server, "PGMONETA_JOB="+e.Job, "PGMONETA_WHEN="+e.When,
		"PGMONETA_BACKUP="+string(e.Backup), "PGMONETA_OUTCOME="+e.Outcome, "PGMONETA_ERROR="+strings.ReplaceAll(e.Error[:min(len(e.Error), hookErrorLimit)], "\x00", ""))
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", program, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// hookErrorLimit is how much of an error a hook finds in its environment, in bytes: with
// a variable of more than 128 KiB Linux starts no program. On its standard input it is whole.
const hookErrorLimit = 32 << 10

// A beginning keeps the first bytes of what is written to it.
type beginning []byte

const beginningLimit = 1000

// Write implements [io.Writer].
func (b *beginning) Write(p []byte) (int, error) {
	*b = append(*b, p[:min(len(p), beginningLimit-len(*b))]...)
	return len(p), nil
}
