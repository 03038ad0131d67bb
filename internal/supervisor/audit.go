package supervisor

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/pgmoneta/pgmoneta-go/internal/mgmt"
)

// An audit is the file of who changed what: one line of JSON per request. It is opened
// for each line, so that whatever rotates it needs to tell nobody.
type audit struct {
	mu   sync.Mutex
	path string // "" for none
}

// check makes sure that the file can be written, before anything is done that
// belongs into it.
func (a *audit) check() error {
	if a.path == "" {
		return nil
	}
	return a.append(nil)
}

// write adds a record.
func (a *audit) write(r mgmt.Record) error {
	if a.path == "" {
		return nil
	}
	line, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("audit %s: %w", a.path, err)
	}
	return a.append(append(line, '\n'))
}

func (a *audit) append(line []byte) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	f, err := os.OpenFile(a.path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	if torn(f) && len(line) > 0 {
		line = append([]byte{'\n'}, line...)
	}
	_, err = f.Write(line)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	return nil
}

// torn reports whether the last line of a file has no end, because the disk was full or
// the power failed: another must not be put behind it.
func torn(f *os.File) bool {
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return false
	}
	last := make([]byte, 1)
	_, err = f.ReadAt(last, info.Size()-1)
	return err == nil && last[0] != '\n'
}

// record writes what a client changed. A line that cannot be written is an error in
// the log, with all of it: what was done is done.
func (s *Supervisor) record(r mgmt.Record) {
	if err := s.audit.write(r); err != nil {
		s.Log.Error("request is not in the audit", "user", r.User, "address", r.Address, "pid", r.PID, "command", r.Command, "done", r.Done, "err", err)
	}
}
