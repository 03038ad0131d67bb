package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// Options say what to restore, and where to.
type Options struct {
	// Backup is a label, or oldest, newest or latest. With one of the words and
	// a target by LSN, time or timeline it stands for the newest backup from
	// which the target can be reached.
	Backup    string
	Target    Target
	Directory string // the target directory is made in it

	// PrimaryConninfo is how a replica reaches its primary. It must not hold a
	// password: that belongs in the password file of the user PostgreSQL runs as.
	PrimaryConninfo string
	PrimarySlot     string
}

// A Plan is a restore that can be run.
type Plan struct {
	Server      string
	Backup      repo.Summary
	Foreign     bool // another program made the backup
	Target      Target
	Timeline    pg.Timeline // timeline that is followed
	Directory   string      // target directory, absolute
	Tablespaces []Tablespace
	Segments    []Segment
	Histories   []pg.Timeline // timelines whose history files are supplied
	WALStart    pg.LSN        // first position recovery reads
	WALEnd      pg.LSN        // where the supplied WAL ends
	Settings    []Setting     // added to postgresql.auto.conf
	Signal      string        // recovery.signal, standby.signal, or empty
	FileBytes   int64         // plain bytes of the backup's files
	WALBytes    int64         // bytes of the segments in pg_wal
	Free        int64         // bytes free for the target
	Interrupted bool          // the leftovers of an interrupted restore will be removed

	repo    *repo.Repository
	follows pg.History // of Timeline
}

// Bytes returns how many bytes the restore writes.
func (p *Plan) Bytes() int64 { return p.FileBytes + p.WALBytes }

// A Tablespace is a directory beside the target directory.
type Tablespace struct {
	repo.Tablespace
	Directory string // absolute
}

// recordReach is how far past a target LSN WAL is supplied. PostgreSQL stops at
// the first record that begins at or after the target, and needs all of it.
const recordReach = 16 << 20

// MakePlan decides how to restore. It changes nothing. Whatever stands in the way
// is an error: [*TargetError], [*HoleError], [*MissingError], [*SpaceError],
// [*OccupiedError], [repo.ErrNoBackup], or what the repository returned.
func MakePlan(ctx context.Context, r *repo.Repository, o Options) (*Plan, error) {
	m := &planner{Options: o, repo: r, plan: &Plan{Server: r.Server(), Target: o.Target, repo: r}}
	for _, step := range []func(context.Context) error{
		m.archive, m.choose, m.objects, m.wal, m.history, m.settings, m.directories, m.space,
	} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return m.plan, nil
}

type planner struct {
	Options
	repo  *repo.Repository
	found *archive
	plan  *Plan
}

func (m *planner) archive(ctx context.Context) (err error) {
	m.found, err = readArchive(ctx, m.repo)
	return err
}

// choose picks the backup and the timeline to follow.
func (m *planner) choose(ctx context.Context) error {
	b, err := m.backup(ctx)
	if err != nil {
		return err
	}
	if b.Err != nil {
		return fmt.Errorf("backup %s: %w", b.Label, b.Err)
	}
	if m.plan.follows, err = m.reach(ctx, b.Summary); err != nil {
		return err
	}
	m.plan.Backup, m.plan.Timeline, m.found.size = b.Summary, m.plan.follows.Timeline, b.Summary.SegmentSize
	m.plan.Foreign = b.Foreign
	return nil
}

func (m *planner) backup(ctx context.Context) (repo.Backup, error) {
	word := m.Backup == "oldest" || m.Backup == "newest" || m.Backup == "latest"
	if !word || !m.selects() {
		return m.repo.Find(ctx, m.Backup)
	}
	list, err := m.repo.Backups(ctx)
	if err != nil {
		return repo.Backup{}, err
	}
	for i := len(list) - 1; i >= 0; i-- {
		if list[i].Err != nil {
			continue
		}
		h, err := m.reach(ctx, list[i].Summary)
		var unfit *TargetError
		if errors.As(err, &unfit) {
			continue
		}
		if err != nil {
			return repo.Backup{}, err
		}
		// A backup of a branch that was left does not lead to the latest timeline.
		if m.followsLatest() && h.Timeline < m.found.highest() {
			continue
		}
		return list[i], nil
	}
	return repo.Backup{}, fmt.Errorf("server %q: no backup ends before %q on its timeline; name a backup by its label or choose a later target: %w",
		m.repo.Server(), m.Target, repo.ErrNoBackup)
}

// selects reports whether the target decides which backup to take.
func (m *planner) selects() bool {
	switch m.Target.Kind {
	case TargetLSN, TargetTime, TargetLatest:
		return true
	}
	return false
}

// followsLatest reports whether the highest timeline is followed. A target inside
// the backup needs no other timeline than the backup's own.
func (m *planner) followsLatest() bool {
	t := m.Target
	return t.Timeline == 0 && !t.OwnTimeline && (t.Kind == TargetLSN || t.toTheEnd())
}

// reach returns the history to follow from a backup to the target. It is a
// [*TargetError] when that does not lead there.
func (m *planner) reach(ctx context.Context, s repo.Summary) (pg.History, error) {
	t := m.Target
	if t.Kind == TargetLSN && s.End > t.LSN {
		return pg.History{}, m.unreachable(s, "it ends at %s, after the target: choose an older backup", s.End)
	}
	if t.Kind == TargetTime && s.StoppedAt.After(t.Time) {
		return pg.History{}, m.unreachable(s, "it ended at %s, after the target: choose an older backup", s.StoppedAt.Format("2006-01-02 15:04:05Z07:00"))
	}
	if m.followsLatest() {
		return m.found.latest(ctx, s)
	}
	tli := t.Timeline
	if tli == 0 {
		tli = s.EndTLI
	}
	h, err := m.repo.History(ctx, tli)
	if errors.Is(err, fs.ErrNotExist) {
		return pg.History{}, m.unreachable(s, "the history of timeline %d is not archived: choose another timeline", tli)
	}
	if err == nil && !through(h, s) {
		err = m.unreachable(s, "timeline %d does not go through its end at %s on timeline %d: choose another backup or timeline", tli, s.End, s.EndTLI)
	}
	return h, err
}

func (m *planner) unreachable(s repo.Summary, format string, args ...any) error {
	return &TargetError{Server: m.repo.Server(), Label: s.Label, Target: m.Target, Why: fmt.Sprintf(format, args...)}
}

// objects checks that everything the backup consists of exists.
func (m *planner) objects(ctx context.Context) error {
	if m.plan.Foreign {
		return m.foreignObjects(ctx)
	}
	s := m.plan.Backup
	manifest, err := m.repo.OpenManifest(ctx, s.Label)
	if err != nil {
		return err
	}
	defer func() { _ = manifest.Close() }()
	m.plan.FileBytes = s.Logical
	if s.Logical < 0 {
		return fmt.Errorf("backup %s claims %d bytes", s.Label, s.Logical)
	}
	have := map[string]bool{}
	for _, prefix := range []string{"pack", "backup/" + string(s.Label)} {
		objects, err := m.repo.Engine().List(ctx, prefix)
		if err != nil {
			return err
		}
		for _, o := range objects {
			have[o.Name] = true
		}
	}
	needs := []string{repo.PostgresManifestName(s.Label)}
	for _, p := range manifest.Packs {
		needs = append(needs, p.Name)
	}
	for _, name := range needs {
		if !have[name] {
			return &MissingError{Server: m.repo.Server(), Label: s.Label, Object: name}
		}
	}
	return nil
}

// wal decides which segments recovery needs and refuses holes.
func (m *planner) wal(context.Context) error {
	s, t := m.plan.Backup, m.Target
	if s.End <= s.Start {
		return fmt.Errorf("backup %s ends at %s, before its start at %s", s.Label, s.End, s.Start)
	}
	last, to := s.End-1, pg.LSN(0) // last byte that is needed; where to stop looking
	switch {
	case t.Kind == TargetLSN:
		last = t.LSN
		if to = last + recordReach; to < last { // past the largest LSN
			to = 0
		}
	case !t.toTheEnd():
		to = s.End
	}
	segments, end, gap, err := m.found.walk(m.plan.follows, s.Start, to)
	if err != nil {
		return err
	}
	if gap != nil && (t.toTheEnd() || gap.from <= last) {
		return m.refuseHole(gap)
	}
	if end < s.End {
		return m.refuseHole(&hole{m.plan.follows.At(end), end, s.End})
	}
	if end <= last {
		return m.unreachable(s, "archived WAL of timeline %d ends at %s: wait until more has arrived, or restore to \"latest\"", m.plan.Timeline, end)
	}
	m.plan.Segments, m.plan.WALStart, m.plan.WALEnd = segments, s.Start, end
	m.plan.WALBytes = int64(len(segments)) * int64(s.SegmentSize)
	return nil
}

func (m *planner) refuseHole(h *hole) error {
	s := m.plan.Backup
	e := &HoleError{Server: m.repo.Server(), Label: s.Label, Timeline: h.timeline, From: h.from, To: h.to}
	if h.from >= s.End {
		e.Nearest = "immediate"
		// A record begins in every segment, so that its start can be reached.
		if last := m.found.size.Start(h.from - 1); last >= s.End {
			e.Nearest = "lsn=" + last.String()
		}
	}
	return e
}

// history decides which timeline histories to supply: those of the followed
// timeline and its ancestors, and when the result will begin a timeline of its
// own all others too, so that it takes a number that is not in use.
func (m *planner) history(context.Context) error {
	begins := m.signal() == recoverySignal
	for _, tli := range m.found.histories {
		if begins || m.plan.follows.Contains(tli) {
			m.plan.Histories = append(m.plan.Histories, tli)
		}
	}
	return nil
}

// directories names the directories and looks at what is there.
func (m *planner) directories(context.Context) error {
	s := m.plan.Backup
	name := m.repo.Server() + "-" + string(s.Label)
	if name != filepath.Base(name) {
		return fmt.Errorf("server %q: its name cannot be part of a directory's name", m.repo.Server())
	}
	dir, err := filepath.Abs(m.Directory)
	if err != nil || m.Directory == "" {
		return errors.Join(err, fmt.Errorf("restore: %q is no directory to restore into", m.Directory))
	}
	m.plan.Directory = filepath.Join(dir, name)
	seen := map[string]bool{}
	for _, ts := range s.Tablespaces {
		path := filepath.Join(dir, name+"-tblspc_"+directoryName(ts))
		if ts.OID == 0 || seen[path] {
			return fmt.Errorf("backup %s lists tablespace %d, %q twice or without a number", s.Label, ts.OID, ts.Name)
		}
		seen[path] = true
		m.plan.Tablespaces = append(m.plan.Tablespaces, Tablespace{ts, path})
	}
	m.plan.Interrupted, err = inspect(m.plan)
	return err
}

// directoryName is the tablespace's name, or its OID when that cannot be the end
// of a file name.
func directoryName(ts repo.Tablespace) string {
	control := func(r rune) bool { return r < ' ' || r == 0x7F || r == '/' }
	if ts.Name == "" || len(ts.Name) > 128 || strings.ContainsFunc(ts.Name, control) {
		return strconv.FormatUint(uint64(ts.OID), 10)
	}
	return ts.Name
}

// space compares the bytes to write, and one percent for directories and
// metadata, with what is free.
func (m *planner) space(context.Context) error {
	free, err := freeSpace(m.plan)
	if err != nil {
		return err
	}
	m.plan.Free = free
	if need := m.plan.Bytes() + m.plan.Bytes()/100; need > free || need < 0 {
		return &SpaceError{Path: m.plan.Directory, Need: need, Free: free}
	}
	return nil
}
