package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

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
	Exact     bool   // Directory is the target directory itself
	// Delta accepts a target directory that holds a data directory, and makes
	// that into the restored one. It implies Exact.
	Delta bool
	// Tar makes a plan for [WriteTar], which needs no directory: tablespaces go into
	// the data directory, and WAL is copied.
	Tar bool

	Tablespaces  []Mapping
	InPlace      bool   // tablespaces go where they were on the server
	WALDirectory string // where pg_wal leads; empty for into the target directory
	Owner        *Owner // of everything that is written; nil for the user that restores

	WAL     Supply
	Command *Command // nil when no restore_command is known

	// PrimaryConninfo is how a replica reaches its primary. It must not hold a
	// password: that belongs in the password file of the user PostgreSQL runs as.
	PrimaryConninfo string
	PrimarySlot     string
}

// A Plan is a restore that can be run.
type Plan struct {
	Server       string
	Backup       repo.Summary
	Foreign      bool // another program made the backup
	Target       Target
	Timeline     pg.Timeline // timeline that is followed
	Directory    string      // target directory, absolute
	Tablespaces  []Tablespace
	WALDirectory string         // where pg_wal leads, absolute; empty when it is part of Directory
	Owner        *Owner         // nil for the user that restores
	Needed       []Segment      // that recovery reads on its way to the target
	Segments     []Segment      // of them, those that are written to pg_wal
	Histories    []pg.Timeline  // timelines whose history files are supplied
	WALStart     pg.LSN         // first position recovery reads
	WALEnd       pg.LSN         // where WAL on the way ends
	Holes        []RecordedHole // in it
	Supply       Supply         // how recovery gets WAL after the backup's own
	SupplyWhy    string         // why not the other way
	Settings     []Setting      // added to postgresql.auto.conf
	Signal       string         // recovery.signal, standby.signal, or empty
	FileBytes    int64          // plain bytes of the backup's files
	WALBytes     int64          // bytes of the segments in pg_wal
	ReadBytes    int64          // stored bytes of everything that may have to be read
	Free         int64          // bytes free for the target, those of what will be replaced included
	Interrupted  bool           // an interrupted restore is finished
	Existing     bool           // a data directory is there, and becomes the restored one

	repo    *repo.Repository
	follows pg.History // of Timeline
}

// Bytes returns how many bytes the restore writes at most.
func (p *Plan) Bytes() int64 { return p.FileBytes + p.WALBytes }

// need returns the bytes that must be free, one percent for directories and metadata
// included.
func (p *Plan) need() int64 { return p.Bytes() + p.Bytes()/100 }

// over reports whether there may be files that are left as they are.
func (p *Plan) over() bool { return p.Interrupted || p.Existing }

// A RecordedHole is WAL on the way to the target that is not archived.
type RecordedHole struct {
	Timeline pg.Timeline
	From, To pg.LSN
}

// recordReach is how far past a target LSN WAL is supplied. PostgreSQL stops at
// the first record that begins at or after the target, and needs all of it.
const recordReach = 16 << 20

// MakePlan decides how to restore. It changes nothing. Whatever stands in the way
// is an error: [*TargetError], [*HoleError], [*MissingError], [*SpaceError],
// [*OccupiedError], [*OptionError], [repo.ErrNoBackup], or what the repository returned.
func MakePlan(ctx context.Context, r *repo.Repository, o Options) (*Plan, error) {
	p, problems := Preview(ctx, r, o)
	if len(problems) > 0 {
		return nil, problems[0]
	}
	return p, nil
}

// Preview is [MakePlan] for who wants to see more than the first thing that stands in
// the way. The plan holds what could be found out; it can be run when there are no problems.
func Preview(ctx context.Context, r *repo.Repository, o Options) (*Plan, []error) {
	m := &planner{Options: o, repo: r, plan: &Plan{Server: r.Server(), Target: o.Target, Owner: o.Owner, repo: r}}
	m.Exact = m.Exact || m.Delta
	// Without a backup and a timeline there is nothing else to say.
	for _, step := range []func(context.Context) error{m.archive, m.choose} {
		if err := step(ctx); err != nil {
			m.nearest(ctx, err)
			return m.plan, []error{err}
		}
	}
	var problems []error
	steps := []func(context.Context) error{m.objects, m.wal, m.history, m.supply, m.settings}
	if !m.Tar {
		steps = append(steps, m.directories, m.space)
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			m.nearest(ctx, err)
			problems = append(problems, err)
		}
	}
	return m.plan, problems
}

type planner struct {
	Options
	repo   *repo.Repository
	found  *archive
	plan   *Plan
	behind *hole // that WAL on the way ends at, nil for none
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
	m.plan.Backup, m.found.size = b.Summary, b.Summary.SegmentSize
	if m.plan.follows, err = m.reach(ctx, b.Summary); err != nil {
		return err
	}
	m.plan.Timeline, m.plan.Foreign = m.plan.follows.Timeline, b.Foreign
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
	unreadable := ""
	for i := len(list) - 1; i >= 0; i-- {
		if err := list[i].Err; err != nil {
			unreadable += fmt.Sprintf("; backup %s is passed over: %v", list[i].Label, err)
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
	if tli := m.Target.Timeline; tli > m.found.highest() {
		return repo.Backup{}, &TargetError{Server: m.repo.Server(), Target: m.Target, Err: repo.ErrNoBackup,
			Why: fmt.Sprintf("there is no timeline %d, the latest is %d: choose another one%s", tli, m.found.highest(), unreadable)}
	}
	return repo.Backup{}, &TargetError{Server: m.repo.Server(), Target: m.Target, Err: repo.ErrNoBackup,
		Why: fmt.Sprintf("no backup ends before %q on its timeline; name a backup by its label or choose a later target%s", m.Target, unreadable)}
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
	if m.afterTarget(s) {
		if m.Target.Kind == TargetLSN {
			return pg.History{}, m.unreachable(s, "it ends at %s, after the target: choose an older backup", s.End)
		}
		return pg.History{}, m.unreachable(s, "it ended at %s, after the target: choose an older backup", s.StoppedAt.Format("2006-01-02 15:04:05Z07:00"))
	}
	return m.follow(ctx, s)
}

// follow returns the history that leads on from a backup as the target says.
func (m *planner) follow(ctx context.Context, s repo.Summary) (pg.History, error) {
	if m.followsLatest() {
		return m.found.latest(ctx, s)
	}
	tli := m.Target.Timeline
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
	have := map[string]int64{}
	for _, prefix := range []string{"pack", "backup/" + string(s.Label)} {
		objects, err := m.repo.Engine().List(ctx, prefix)
		if err != nil {
			return err
		}
		for _, o := range objects {
			have[repo.PackOf(o.Name)] = o.Size
		}
	}
	needs := []string{repo.PostgresManifestName(s.Label)}
	for _, p := range manifest.Packs {
		needs = append(needs, p.Name)
	}
	for _, name := range needs {
		size, ok := have[name]
		if !ok {
			return &MissingError{Server: m.repo.Server(), Label: s.Label, Object: name}
		}
		m.plan.ReadBytes += size
	}
	return nil
}

// wal decides which segments recovery needs, and refuses holes and targets that they do not hold.
func (m *planner) wal(ctx context.Context) error {
	if err := m.way(); err != nil {
		return err
	}
	return m.occurs(ctx)
}

// way finds the segments on the way to the target.
func (m *planner) way() error {
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
	case t.Kind == TargetImmediate:
		// PostgreSQL may see that it is consistent only when it looks for the next
		// record, and complains when there is none. One begins in every segment.
		to = m.found.size.Start(s.End-1) + 2*pg.LSN(m.found.size)
	case !t.toTheEnd():
		to = s.End
	}
	segments, end, gap, err := m.found.walk(m.plan.follows, s.Start, to)
	if err != nil {
		return err
	}
	m.plan.Needed, m.plan.WALStart, m.plan.WALEnd, m.behind = segments, s.Start, end, gap
	if gap != nil && (t.toTheEnd() || gap.from <= last) {
		return errors.Join(m.holes(gap, to), m.refuseHole(gap))
	}
	if end < s.End {
		return m.refuseHole(&hole{m.plan.follows.At(end), end, s.End})
	}
	if end <= last {
		return m.unreachable(s, "archived WAL of timeline %d ends at %s: wait until more has arrived, or restore to \"latest\"", m.plan.Timeline, end)
	}
	return nil
}

// holes notes all gaps on the way, of which the first is known.
func (m *planner) holes(gap *hole, to pg.LSN) (err error) {
	for gap != nil && err == nil {
		m.plan.Holes = append(m.plan.Holes, RecordedHole{gap.timeline, gap.from, gap.to})
		if to != 0 && gap.to >= to {
			return nil
		}
		_, _, gap, err = m.found.walk(m.plan.follows, gap.to, to)
	}
	return err
}

func (m *planner) refuseHole(h *hole) error {
	s := m.plan.Backup
	e := &HoleError{Server: m.repo.Server(), Label: s.Label, Timeline: h.timeline, From: h.from, To: h.to}
	if h.from >= s.End {
		e.Nearest = lastPosition(m.found.size, s, h.from)
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
