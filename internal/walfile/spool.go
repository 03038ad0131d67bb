package walfile

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
)

// A spool is a directory below pg_wal in which segments are prepared, so that
// delivering one is a rename.
//
//	lock              held by the one prefetcher at work
//	want              the segment delivered last: the prefetcher works ahead of it
//	<key>.<segment>   a prepared segment, complete and checked
//	*.tmp             a segment being prepared, or a want being written
//
// The key stands for the repository and the boot of the machine. Entries are not
// synced, so that one from before a power cut may be anything.
type spool struct {
	dir string
	key string
}

const (
	spoolDirectory = "pgmoneta-prefetch"
	lockName       = "lock"
	wantName       = "want"
	tempSuffix     = ".tmp"

	// spoolBytes limits what is prepared, whatever the number of CPUs.
	spoolBytes = 4 << 30
	// pollEvery is how often the spool is looked at while waiting.
	pollEvery = time.Millisecond
	// takePatience is how long a segment being prepared is waited for.
	takePatience = 30 * time.Second
	// clearPatience is how long clearing waits for a prefetcher to end.
	clearPatience = 2 * time.Second
)

func newSpool(a *archive, dir string) (*spool, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, err
	}
	repository, err := filepath.Abs(a.repo.Dir())
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(string(boot) + "\n" + repository + "\n" + a.format.Repository))
	return &spool{dir: dir, key: hex.EncodeToString(sum[:8])}, nil
}

func (s *spool) path(name string) string     { return filepath.Join(s.dir, name) }
func (s *spool) entry(segment string) string { return s.path(s.key + "." + segment) }

func (s *spool) ready(segment string) bool {
	_, err := os.Stat(s.entry(segment))
	return err == nil
}

// busy reports whether a prefetcher has the spool. One that is about to end has
// it too, and looks at the want once more when it has given it up: a want that
// was set before asking is seen by that prefetcher or by the next one.
func (s *spool) busy() bool {
	locked, err := durable.Locked(s.path(lockName))
	return locked && err == nil
}

// A want tells the prefetcher which segment was delivered last.
type want struct {
	key     string
	segment string
	size    pg.SegmentSize
	ahead   int // how many segments to prepare after it
}

func (w want) text() string {
	return fmt.Sprintf("%s %s %d %d\n", w.key, w.segment, w.size, w.ahead)
}

func parseWant(text string) (want, error) {
	var w want
	if _, err := fmt.Sscanf(text, "%s %s %d %d\n", &w.key, &w.segment, &w.size, &w.ahead); err != nil {
		return want{}, err
	}
	if !w.size.Valid() || w.ahead < 1 {
		return want{}, fmt.Errorf("segment size %d, %d ahead", w.size, w.ahead)
	}
	_, _, err := pg.ParseSegmentName(w.segment, w.size)
	return w, err
}

// window lists the segments to prepare.
func (w want) window() []string {
	tli, lsn, err := pg.ParseSegmentName(w.segment, w.size)
	if err != nil {
		return nil
	}
	n := min(w.ahead, max(1, int(spoolBytes/int64(w.size))))
	names := make([]string, 0, n)
	for range n {
		lsn += pg.LSN(w.size)
		if lsn == 0 {
			break // the last segment there can be
		}
		names = append(names, pg.SegmentName(tli, lsn, w.size))
	}
	return names
}

// wanted returns the want, the zero want and false when there is none of this repository.
func (s *spool) wanted() (want, bool) {
	b, err := os.ReadFile(s.path(wantName))
	if err != nil {
		return want{}, false
	}
	w, err := parseWant(string(b))
	if err != nil || w.key != s.key {
		return want{}, false
	}
	return w, true
}

// setWant makes the spool if it is missing.
func (s *spool) setWant(w want) error {
	if err := os.Mkdir(s.dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	temp := s.path(fmt.Sprintf("%s.%d%s", wantName, os.Getpid(), tempSuffix))
	if err := os.WriteFile(temp, []byte(w.text()), 0o600); err != nil {
		_ = os.Remove(temp)
		return err
	}
	return os.Rename(temp, s.path(wantName))
}

// skip keeps a prefetcher from beginning with a segment that is about to be
// delivered directly. A look at another timeline, which may have no such
// segment, leaves what is prepared alone.
func (s *spool) skip(segment string) {
	if w, ok := s.wanted(); ok && w.segment[:8] == segment[:8] {
		w.segment = segment
		_ = s.setWant(w)
	}
}

// take moves a prepared segment to target and returns its size. When the
// segment is just being prepared it waits for it, because doing the work twice
// would take longer. Whatever goes wrong is no harm: ok is false.
func (s *spool) take(ctx context.Context, a *archive, segment, target string) (size pg.SegmentSize, ok bool) {
	for deadline := time.Now().Add(takePatience); ; {
		// The order matters: an entry may become ready between the two looks.
		preparing := s.preparing(segment)
		size, err := s.inspect(a, segment)
		if err == nil {
			return size, os.Rename(s.entry(segment), target) == nil
		}
		if !errors.Is(err, os.ErrNotExist) {
			_ = os.Remove(s.entry(segment))
			return 0, false
		}
		if !preparing || time.Now().After(deadline) || !pause(ctx, pollEvery) {
			return 0, false
		}
	}
}

// preparing reports whether a live prefetcher is at work on a segment.
func (s *spool) preparing(segment string) bool {
	_, err := os.Stat(s.entry(segment) + tempSuffix)
	return err == nil && s.busy()
}

// inspect checks size and first page of an entry. Its hashes were checked when it was made.
func (s *spool) inspect(a *archive, segment string) (pg.SegmentSize, error) {
	f, err := os.Open(s.entry(segment))
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	page, err := readFirst(f)
	if err != nil {
		return 0, err
	}
	return a.check(segment, page, info.Size())
}

// prepare makes the entry of a segment. It is called by the prefetcher alone.
func (s *spool) prepare(ctx context.Context, a *archive, segment string, scratch []container.Scratch) error {
	temp := s.entry(segment) + tempSuffix
	f, err := os.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = a.segment(ctx, segment, f, scratch)
	if err := errors.Join(err, f.Close()); err != nil {
		_ = os.Remove(temp)
		return err
	}
	return os.Rename(temp, s.entry(segment))
}

// isNextWant reports whether a file of the spool is a want being written. One
// that a killed delivery left stays until the spool is cleared.
func isNextWant(name string) bool {
	return strings.HasPrefix(name, wantName+".") && strings.HasSuffix(name, tempSuffix)
}

// tidy removes everything but what keep accepts. The caller holds the lock.
func (s *spool) tidy(keep func(name string) bool) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if n := e.Name(); n != lockName && n != wantName && !keep(n) {
			_ = os.Remove(s.path(n))
		}
	}
}

// clear empties the spool. A prefetcher at work ends when its want is gone.
func (s *spool) clear(ctx context.Context) {
	if err := os.Remove(s.path(wantName)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return
	}
	if _, err := os.Stat(s.path(lockName)); err != nil {
		return // never used
	}
	lock, err := s.lock(ctx, clearPatience)
	if err != nil {
		return
	}
	s.tidy(func(string) bool { return false })
	_ = lock.Release()
}

// lock takes the lock, waiting a while for another holder.
func (s *spool) lock(ctx context.Context, patience time.Duration) (*durable.Lock, error) {
	return waitLock(ctx, s.path(lockName), patience)
}

func waitLock(ctx context.Context, path string, patience time.Duration) (*durable.Lock, error) {
	for deadline := time.Now().Add(patience); ; {
		lock, err := durable.TryLock(path)
		var locked *durable.LockedError
		if !errors.As(err, &locked) || time.Now().After(deadline) || !pause(ctx, pollEvery) {
			return lock, err
		}
	}
}

// pause waits and reports whether to go on.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
