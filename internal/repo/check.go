package repo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
)

// CheckOptions tell how to check a repository.
type CheckOptions struct {
	Full     bool // read every frame and compare its hash
	Workers  int  // 0 = one per CPU
	Progress func(phase string, done, total int64)
}

// A CheckFinding is an object that is damaged or missing and what that means.
type CheckFinding struct {
	Object  string
	Backups []Label  // that need it, oldest first
	Files   []string // of those backups that are affected, at most [maxFindingFiles]; none when all are
	Err     error
}

const maxFindingFiles = 20

// A Usage is what the backups of a repository hold and what it takes. Sizes are bytes.
type Usage struct {
	Backups []BackupUsage
	Logical int64 // sum of the backups' files
	Packs   int
	Stored  int64 // packs and manifests
	Shared  int64 // of frames that more than one backup uses
	Dead    int64 // of frames, and whole packs, that none uses
	Sparse  int64 // of Dead, what lies in packs of which that is [MostlyDead] or more
	Frames  int64
}

// A BackupUsage is the part of one backup.
type BackupUsage struct {
	Summary Summary
	Alone   int64 // stored bytes of frames that no other backup uses
}

// A CheckReport is the result of [Repository.Check].
type CheckReport struct {
	Usage
	Read     int64 // plain bytes whose hashes were compared
	Findings []CheckFinding
	Checked  []string // packs and PostgreSQL manifests that were read in full
}

// Damaged returns the findings by object, as [Repository.RecordDamage] takes them. Only
// objects that exist can be marked.
func (r *CheckReport) Damaged() map[string]error {
	found := map[string]error{}
	for _, f := range r.Findings {
		if !errors.Is(f.Err, fs.ErrNotExist) && !strings.HasSuffix(f.Object, "/manifest") {
			found[f.Object] = f.Err
		}
	}
	return found
}

// Check proves that every backup has all it refers to: every manifest is readable, every
// pack is there with an undamaged index, every extent lies in frames that exist; in
// full also that every frame has its hash. It does not look at WAL. It changes nothing.
//
// It takes 12 bytes of memory per frame of the repository. The error is set only when
// checking itself was impossible. The caller holds [Repository.Lock]; without it what
// another process removes meanwhile is among the findings.
func (r *Repository) Check(ctx context.Context, o CheckOptions) (CheckReport, error) {
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.Progress == nil {
		o.Progress = func(string, int64, int64) {}
	}
	c := &survey{repo: r, CheckOptions: o, packs: map[string]*surveyPack{}, findings: map[string]*CheckFinding{}}
	if err := c.run(ctx); err != nil {
		return CheckReport{}, err
	}
	return c.conclude(), nil
}

// A survey looks at all backups and packs at once.
type survey struct {
	repo *Repository
	CheckOptions
	backups []*surveyBackup
	refs    []PackRef // every pack that is named or there
	packs   map[string]*surveyPack
	report  CheckReport

	mu       sync.Mutex
	done     int64
	total    int64
	findings map[string]*CheckFinding
}

type surveyBackup struct {
	summary Summary
	packs   []*surveyPack // its pack table
}

type surveyPack struct {
	name   string
	size   int64 // 0 when it is missing
	users  []Label
	broken bool // cannot be opened
	plain  []uint32
	stored []uint32
	use    []uint32 // by frame: twice the number of the last backup that uses it from 1, and 1 if another does too
	bad    map[int]error
}

func (c *survey) run(ctx context.Context) error {
	labels, err := c.repo.labels(ctx)
	if err != nil {
		return err
	}
	if err := c.list(ctx); err != nil {
		return err
	}
	for i, l := range labels {
		c.Progress("Manifests", int64(i), int64(len(labels)))
		if err := c.backup(ctx, l); err != nil {
			return err
		}
	}
	if err := c.open(ctx); err != nil {
		return err
	}
	for i, b := range c.backups {
		c.Progress("References", int64(i), int64(len(c.backups)))
		if err := c.references(ctx, i+1, b); err != nil {
			return err
		}
	}
	return nil
}

// list finds the packs that are there.
func (c *survey) list(ctx context.Context) error {
	objects, err := c.repo.engine.List(ctx, "pack")
	for _, o := range objects {
		c.pack(PackOf(o.Name)).size += o.Size
		c.total += o.Size
		c.report.Stored += o.Size
	}
	return err
}

func (c *survey) pack(name string) *surveyPack {
	p := c.packs[name]
	if p == nil {
		p = &surveyPack{name: name, bad: map[int]error{}}
		c.packs[name] = p
		c.refs = append(c.refs, PackRef{Name: name})
	}
	return p
}

// found notes damage. Files may be empty.
func (c *survey) found(object string, users []Label, file string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.findings[object]
	if f == nil {
		f = &CheckFinding{Object: object, Err: err}
		c.findings[object] = f
	}
	for _, l := range users {
		if !slices.Contains(f.Backups, l) {
			f.Backups = append(f.Backups, l)
		}
	}
	if file != "" && len(f.Files) < maxFindingFiles && !slices.Contains(f.Files, file) {
		f.Files = append(f.Files, file)
	}
}

// backup reads what a manifest says of packs, and PostgreSQL's manifest beside it.
func (c *survey) backup(ctx context.Context, l Label) error {
	m, err := c.repo.OpenManifest(ctx, l)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		c.found(manifestName(l), []Label{l}, "", err)
		return nil
	}
	defer func() { _ = m.Close() }()
	b := &surveyBackup{summary: m.Summary}
	for _, ref := range m.Packs {
		p := c.pack(ref.Name)
		p.users = append(p.users, l)
		b.packs = append(b.packs, p)
	}
	c.backups = append(c.backups, b)
	c.report.Stored += m.object.Size()
	name := PostgresManifestName(l)
	if err := c.repo.ReadPostgresManifest(ctx, l, io.Discard); err != nil {
		c.found(name, []Label{l}, "", err)
	} else {
		c.report.Checked = append(c.report.Checked, name)
	}
	return ctx.Err()
}

// open reads the index of every pack, and in full its frames, several packs at once.
func (c *survey) open(ctx context.Context) error {
	frames := container.NewChecker(c.Workers)
	defer frames.Close()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(c.Workers)
	set := c.repo.PackSet(c.refs, c.Workers+1)
	defer set.Close()
	for i, ref := range c.refs {
		p := c.packs[ref.Name]
		g.Go(func() error {
			err := set.Use(ctx, i, func(r *container.Reader) error { return c.frames(ctx, p, r, frames) })
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err != nil {
				p.broken = true
				c.found(p.name, p.users, "", err)
			}
			return nil
		})
	}
	return g.Wait()
}

func (c *survey) frames(ctx context.Context, p *surveyPack, r *container.Reader, frames *container.Checker) error {
	p.plain, p.stored, p.use = make([]uint32, r.Frames()), make([]uint32, r.Frames()), make([]uint32, r.Frames())
	for i := range p.plain {
		f := r.Frame(i)
		p.plain[i], p.stored[i] = f.Plain, f.Stored
	}
	if c.Full {
		if err := c.read(ctx, p, r, frames); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done += p.size
	c.Progress("Packs", c.done, c.total)
	if c.Full {
		c.report.Checked = append(c.report.Checked, p.name)
	}
	return nil
}

// read reads the frames of a pack.
func (c *survey) read(ctx context.Context, p *surveyPack, r *container.Reader, frames *container.Checker) error {
	err := frames.Check(ctx, r, func(i int, err error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.report.Read += int64(p.plain[i])
		if err != nil {
			p.bad[i] = err
		}
	})
	for _, i := range slices.Sorted(maps.Keys(p.bad)) {
		c.found(p.name, nil, "", p.bad[i])
	}
	return err
}

// references follows every extent of backup number n, from 1.
func (c *survey) references(ctx context.Context, n int, b *surveyBackup) error {
	m, err := c.repo.OpenManifest(ctx, b.summary.Label)
	if err != nil {
		return err
	}
	defer func() { _ = m.Close() }()
	for f, err := range m.Files() {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			c.found(manifestName(b.summary.Label), []Label{b.summary.Label}, "", err)
			break
		}
		for _, x := range f.Extents {
			c.extent(n, b, f.Path, x)
		}
	}
	return nil
}

func (c *survey) extent(n int, b *surveyBackup, path string, x Extent) {
	p := b.packs[x.Pack]
	if p.broken {
		return // all of it is reported
	}
	for frame, left := x.Frame, x.Length+x.Skip; left > 0; frame++ {
		if frame >= len(p.plain) {
			c.found(manifestName(b.summary.Label), []Label{b.summary.Label}, path, fmt.Errorf("it refers to frame %d of %s, which has %d", frame, p.name, len(p.plain)))
			return
		}
		if p.stored[frame] == 0 && p.plain[frame] > 0 {
			c.found(p.name, []Label{b.summary.Label}, path, &container.DamagedError{Object: p.name, Frame: frame, Err: container.ErrDropped})
		}
		if err := p.bad[frame]; err != nil {
			c.found(p.name, []Label{b.summary.Label}, path, err)
		}
		switch last := int(p.use[frame] >> 1); last {
		case n:
		case 0:
			p.use[frame] = uint32(n) << 1
		default:
			p.use[frame] = uint32(n)<<1 | 1
		}
		left -= int64(p.plain[frame])
	}
}

func (c *survey) conclude() CheckReport {
	r := &c.report
	r.Backups = make([]BackupUsage, len(c.backups))
	for i, b := range c.backups {
		r.Backups[i].Summary = b.summary
		r.Logical += b.summary.Logical
	}
	for _, p := range c.packs {
		if p.size > 0 {
			r.Packs++
		}
		c.weigh(p)
	}
	for _, f := range c.findings {
		r.Findings = append(r.Findings, *f)
	}
	slices.SortFunc(r.Findings, func(a, b CheckFinding) int { return strings.Compare(a.Object, b.Object) })
	slices.Sort(r.Checked)
	return *r
}

// weigh adds up what the frames of a pack take, by who uses them.
func (c *survey) weigh(p *surveyPack) {
	r := &c.report
	if p.broken {
		return
	}
	r.Frames += int64(len(p.stored))
	if len(p.users) == 0 {
		r.Dead += p.size
		return
	}
	var all, dead int64
	for i, stored := range p.stored {
		all += int64(stored)
		switch use := p.use[i]; {
		case use == 0:
			dead += int64(stored)
		case use&1 != 0:
			r.Shared += int64(stored)
		default:
			r.Backups[use>>1-1].Alone += int64(stored)
		}
	}
	r.Dead += dead
	if dead > 0 && float64(dead) >= MostlyDead*float64(all) {
		r.Sparse += dead
	}
}
