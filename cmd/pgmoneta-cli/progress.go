package main

import (
	"context"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/console"
	"github.com/pgmoneta/pgmoneta-go/internal/mgmt"
	"github.com/pgmoneta/pgmoneta-go/internal/version"
)

// How often the daemon is asked how far a job is. A remote one checks a password each time.
const (
	pollEvery       = 500 * time.Millisecond
	pollRemoteEvery = 2 * time.Second
)

// progressForms are the commands that show how far they are.
func progressForms() []string { return []string{"backup", "restore", "verify", "archive", "delete"} }

// newBar returns what shows the progress of a command, nil when nobody is there to see it.
func (p *program) newBar(c call) *progressBar {
	if p.progressColumns <= 0 || c.options.Has("--no-progress") || c.options.Has("--dry-run") || !slices.Contains(progressForms(), c.form.name()) {
		return nil
	}
	return &progressBar{w: p.stderr, columns: p.progressColumns - 1, now: p.now} // in the last column a terminal may begin a new line
}

// follow shows how far the job with a ticket is, until the returned function is called. That leaves the line empty.
func (p *program) follow(ctx context.Context, conn connection, c call, ticket any) (stop func()) {
	b := p.newBar(c)
	if b == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var poll sync.WaitGroup
	poll.Go(func() { p.poll(ctx, conn, c, ticket, b) })
	return func() {
		cancel()
		poll.Wait()
		b.clear()
	}
}

// poll asks the daemon on connections of its own: that of the command waits for the response. An answer that does not
// come is none: the command itself reports what is wrong.
func (p *program) poll(ctx context.Context, conn connection, c call, ticket any, b *progressBar) {
	every := pollEvery
	if conn.remote != "" {
		every = pollRemoteEvery
	}
	for t := time.NewTicker(every); ; {
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
		client, err := p.dial(ctx, &conn)
		if err != nil {
			continue
		}
		client.Version, client.Now = version.Version, p.now
		client.Coding, client.Keys = conn.coding, p.masterKey
		doc, err := client.Call(ctx, mgmt.Progress, mgmt.Document{"Server": c.word(0), "Command": c.form.name(), "Ticket": ticket})
		_ = client.Close()
		if err == nil && doc.Outcome().Status {
			b.answer(doc.Object("Response"))
		}
	}
}

// A progressBar is the last line of a terminal. It is used by one goroutine at a time.
type progressBar struct {
	w       io.Writer
	columns int
	now     func() time.Time

	began   time.Time
	drawn   time.Time
	phase   string
	samples []sample // of this phase, of the last rateTime
	wide    int      // of what stands there now
}

// A sample is how much was done at a moment.
type sample struct {
	at   time.Time
	done int64
}

const (
	rateTime  = 10 * time.Second       // over which a rate is taken
	drawEvery = 200 * time.Millisecond // a line that changes faster cannot be read
)

// answer shows the daemon's answer about the job.
func (b *progressBar) answer(resp mgmt.Document) {
	if resp.Text("State") == "queued" {
		b.show("waiting for another job of this server", 0, 0)
		return
	}
	if n, _ := resp.Integer("ProgressState"); n == 0 {
		return // it has not begun, or it has ended
	}
	phase := resp.Text("Phase")
	if phase == "" {
		phase = resp.Text("Kind")
	}
	done, _ := resp.Integer("Done")
	total, _ := resp.Integer("Total")
	b.show(phase, done, total)
}

// show draws the line, unless it was drawn just now.
func (b *progressBar) show(phase string, done, total int64) {
	now := b.now()
	if b.began.IsZero() {
		b.began = now
	}
	if phase == b.phase && now.Sub(b.drawn) < drawEvery {
		return
	}
	rate := b.rate(now, phase, done)
	b.drawn, b.phase = now, phase
	line := console.Progress{Phase: phase, Done: done, Total: total, Rate: rate, Elapsed: now.Sub(b.began)}.Line(b.columns)
	b.write(line)
}

// rate returns the bytes per second of the last seconds, 0 while that cannot be told.
func (b *progressBar) rate(now time.Time, phase string, done int64) float64 {
	if n := len(b.samples); phase != b.phase || n > 0 && done < b.samples[n-1].done {
		b.samples = nil
	}
	b.samples = append(b.samples, sample{now, done})
	for len(b.samples) > 2 && now.Sub(b.samples[1].at) > rateTime {
		b.samples = b.samples[1:]
	}
	first := b.samples[0]
	if took := now.Sub(first.at).Seconds(); took > 0 {
		return float64(done-first.done) / took
	}
	return 0
}

func (b *progressBar) write(line string) {
	wide := len([]rune(line))
	_, _ = io.WriteString(b.w, "\r"+line+strings.Repeat(" ", max(0, b.wide-wide)))
	b.wide = wide
}

// clear leaves an empty line with the cursor at its beginning.
func (b *progressBar) clear() {
	if b.wide > 0 {
		b.write("")
		_, _ = io.WriteString(b.w, "\r")
	}
}
