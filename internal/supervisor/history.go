package supervisor

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/job"
)

// maxHistory is how many ended jobs are remembered, over restarts too.
const maxHistory = 1000

// historyName is the file in base_dir that remembers them.
const historyName = "pgmoneta.jobs"

// States of a job as they are shown.
const (
	stateQueued  = "queued"
	stateRunning = "running"
	stateDone    = "done"
	stateFailed  = "failed"
)

// A record is what is remembered of a job: one line of the history, as JSON.
type record struct {
	ID     int64
	Server string // "" for a job about a file
	Kind   job.Kind
	State  string
	Backup string `json:",omitempty"`
	File   string `json:",omitempty"` // that it is about
	Error  string `json:",omitempty"`

	Queued  time.Time
	Started time.Time `json:",omitzero"`
	Ended   time.Time `json:",omitzero"`
}

// An entry is a job that has not ended.
type entry struct {
	record                 // State and Started are guarded by the mutex of the book
	turn     chan struct{} // closed when it may run
	unwanted chan struct{} // closed when it is cancelled while it waits
	request  uint64        // of a client, 0 for none; only who entered it asks
	ticket   string        // by which the one who asked for it cancels it, "" for none
}

func (e *entry) cancelled() bool {
	select {
	case <-e.unwanted:
		return true
	default:
		return false
	}
}

// A book knows the jobs that wait, run and ended.
type book struct {
	mu   sync.Mutex
	last int64 // ID given out
	open map[int64]*entry
	past []record // oldest first

	saving sync.Mutex // one writer of the file at a time
	path   string
}

// load reads the history. Lines that cannot be read are left out and counted.
func (b *book) load(baseDir string) (damaged int, err error) {
	b.path = filepath.Join(baseDir, historyName)
	content, err := os.ReadFile(b.path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.past, damaged = decodeHistory(content)
	for _, r := range b.past {
		b.last = max(b.last, r.ID)
	}
	return damaged, nil
}

// decodeHistory reads at most the newest records that are kept.
func decodeHistory(content []byte) (past []record, damaged int) {
	for line := range bytes.Lines(content) {
		var r record
		if err := json.Unmarshal(line, &r); err != nil || r.ID <= 0 || r.ID > maxID || r.Kind == "" || (r.Server == "") != r.Kind.OfFile() {
			damaged++
			continue
		}
		past = append(past, r)
	}
	return past[max(0, len(past)-maxHistory):], damaged
}

// maxID leaves room: a damaged number must not use up those that follow.
const maxID = 1 << 53

// enter makes a job known, before it waits for its turn. Of its record only what it is about is given.
func (b *book) enter(r record, ticket string) *entry {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last++
	r.ID, r.State, r.Queued = b.last, stateQueued, time.Now().UTC()
	e := &entry{record: r, turn: make(chan struct{}), unwanted: make(chan struct{}), ticket: ticket}
	if b.open == nil {
		b.open = map[int64]*entry{}
	}
	b.open[e.ID] = e
	return e
}

func (b *book) begin(e *entry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e.State, e.Started = stateRunning, time.Now().UTC()
}

// leave remembers how a job ended. One that was refused because the server is busy
// was none, and one that only looked is not worth a line unless it failed, in another way
// than the last time: those that the daemon repeats would push out all others.
func (b *book) leave(e *entry, result job.Result, err error) error {
	if err == nil && result.Failure != nil {
		err = result.Failure
	}
	b.mu.Lock()
	delete(b.open, e.ID)
	var busy *busyError
	if errors.As(err, &busy) || e.Kind.Quiet() && (err == nil || b.knows(e, err)) {
		b.mu.Unlock()
		return nil
	}
	r := e.record
	r.State, r.Ended = stateDone, time.Now().UTC()
	if err != nil {
		r.State, r.Error = stateFailed, err.Error()
	}
	if result.Backup != nil {
		r.Backup = string(result.Backup.Label)
	}
	b.past = append(b.past[max(0, len(b.past)+1-maxHistory):], r)
	b.mu.Unlock()
	return b.save()
}

// knows reports whether the last job of this kind and server that is remembered failed in
// the same way.
func (b *book) knows(e *entry, err error) bool {
	for _, r := range slices.Backward(b.past) {
		if r.Server == e.Server && r.Kind == e.Kind {
			return r.Error == err.Error()
		}
	}
	return false
}

// save writes the history. It is taken after the turn to write has come, so that the
// newest is what stays.
func (b *book) save() error {
	b.saving.Lock()
	defer b.saving.Unlock()
	if b.path == "" {
		return nil
	}
	b.mu.Lock()
	past := slices.Clone(b.past)
	b.mu.Unlock()
	var content bytes.Buffer
	encoder := json.NewEncoder(&content)
	for _, r := range past {
		if err := encoder.Encode(r); err != nil {
			return fmt.Errorf("history of jobs: %w", err)
		}
	}
	return durable.Replace(b.path, content.Bytes())
}

// list returns the jobs, ended ones first, then in the order they were asked for.
func (b *book) list() []record {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := slices.Clone(b.past)
	for _, id := range slices.Sorted(maps.Keys(b.open)) {
		all = append(all, b.open[id].record)
	}
	return all
}

// unqueue cancels a job of a server that waits. running reports that it is too late for that.
func (b *book) unqueue(server string, id int64) (running, known bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.open[id]
	if e == nil || e.Server != server {
		return false, false
	}
	select {
	case <-e.unwanted:
	default:
		close(e.unwanted)
	}
	return e.State == stateRunning, true
}

// find returns the job with a ticket, 0 for none.
func (b *book) find(server, ticket string) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, e := range b.open {
		if e.Server == server && e.ticket == ticket {
			return id
		}
	}
	return 0
}

// state returns that of the job with a ticket, "" when it has ended or was never asked for.
func (b *book) state(server, ticket string) string {
	id := b.find(server, ticket)
	b.mu.Lock()
	defer b.mu.Unlock()
	if e := b.open[id]; e != nil {
		return e.State
	}
	return ""
}
