package repo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/storage"
)

// A pack is known by one name for ever, and is found under it or, once it was
// compacted, under that name with the number of its generation: pack/<label>/<n>,
// then pack/<label>/<n>.2, pack/<label>/<n>.3. Every generation has the same frames
// under the same numbers, but for those that no backup needed when it was made. So
// whichever is there serves all backups that are listed, and no manifest changes.

// PackOf returns the name of the pack that an object is a generation of.
func PackOf(object string) string {
	name, _ := generationOf(object)
	return name
}

func generationOf(object string) (name string, generation int) {
	dot := strings.LastIndexByte(object, '.')
	if dot < 0 || !strings.HasPrefix(object, "pack/") {
		return object, 1
	}
	n, err := strconv.Atoi(object[dot+1:])
	if err != nil || n < 2 {
		return object, 1
	}
	return object[:dot], n
}

// generations returns the objects of the packs of a label by pack, newest generation last.
func (r *Repository) generations(ctx context.Context, label string) (map[string][]string, error) {
	dir := path.Join("pack", label)
	names, err := storage.Children(ctx, r.engine, dir)
	if err != nil {
		return nil, err
	}
	found := map[string][]string{}
	for _, n := range names {
		object := path.Join(dir, n)
		found[PackOf(object)] = append(found[PackOf(object)], object)
	}
	for _, objects := range found {
		slices.SortFunc(objects, func(a, b string) int {
			_, x := generationOf(a)
			_, y := generationOf(b)
			return cmp.Compare(x, y)
		})
	}
	return found, nil
}

// dropSuperseded removes generations of packs that have a newer one. No job may be in
// progress: a new backup must not find frames in them that the newer one has dropped.
func (r *Repository) dropSuperseded(ctx context.Context) error {
	labels, err := storage.Children(ctx, r.engine, "pack")
	if err != nil {
		return err
	}
	for _, l := range labels {
		packs, err := r.generations(ctx, l)
		if err != nil {
			return err
		}
		for _, name := range slices.Sorted(maps.Keys(packs)) {
			objects := packs[name]
			for _, o := range objects[:len(objects)-1] {
				if err := r.engine.Delete(ctx, o); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// MostlyDead is the share of a pack's bytes that is dead when it is worth writing again: what
// that frees is at least what it costs.
const MostlyDead = 0.5

// CompactOptions tell which packs to compact.
type CompactOptions struct {
	// Packs to look at, as [Repository.PacksOf] returns them.
	Packs []string
	// Share of a pack's bytes, from 0 to 1, that must be dead.
	Share float64
	// Budget is how many stored bytes may be read and written again.
	Budget   int64
	Progress func(phase string, done, total int64)
}

// A Compaction is what [Repository.Compact] did. Sizes are stored bytes.
type Compaction struct {
	Packs   int
	Copied  int64
	Freed   int64
	Waiting int // packs for which the budget was too small
}

// Packs returns the packs that any backup refers to, those in the trash included.
func (r *Repository) Packs(ctx context.Context) ([]string, error) {
	labels, err := r.labels(ctx)
	return r.PacksOf(ctx, labels...), err
}

// PacksOf returns the packs that the backups refer to. A manifest that cannot be read
// has none.
func (r *Repository) PacksOf(ctx context.Context, labels ...Label) []string {
	packs := map[string]bool{}
	for _, l := range labels {
		m, err := r.OpenManifest(ctx, l)
		if err != nil {
			continue
		}
		for _, p := range m.Packs {
			packs[p.Name] = true
		}
		_ = m.Close()
	}
	return slices.Sorted(maps.Keys(packs))
}

// Compact writes packs that are mostly dead again, without the frames that no backup
// needs: those where that frees most for what it costs first. A pack with a damaged frame
// that is needed stays as it is. The caller holds [Repository.Lock].
//
// Each pack is replaced for itself: first the new generation is durable, then the old
// one is removed. A crash leaves both, of which either will do.
func (r *Repository) Compact(ctx context.Context, o CompactOptions) (Compaction, error) {
	if o.Progress == nil {
		o.Progress = func(string, int64, int64) {}
	}
	if err := r.prepareKeys(ctx, OwnerJob); err != nil {
		return Compaction{}, err
	}
	c := &compactor{repo: r, CompactOptions: o, packs: map[string]*sparsePack{}}
	if err := c.choose(ctx); err != nil {
		return Compaction{}, err
	}
	err := c.run(ctx)
	return c.done, err
}

type compactor struct {
	repo *Repository
	CompactOptions
	packs map[string]*sparsePack
	done  Compaction
}

// A sparsePack is a pack that may be mostly dead.
type sparsePack struct {
	name   string
	frames []frameSize
	used   []bool // by frame
	most   int64  // plain bytes that one backup uses
	needed bool
}

type frameSize struct{ Plain, Stored uint32 }

// weigh returns the stored bytes of the frames that are needed and of the others.
func (p *sparsePack) weigh() (live, dead int64) {
	for i, f := range p.frames {
		if p.used[i] {
			live += int64(f.Stored)
		} else {
			dead += int64(f.Stored)
		}
	}
	return live, dead
}

// choose finds the packs that may be mostly dead, and which of their frames are needed.
// Pack tables tell what cannot be; only manifests that name what is left are read.
func (c *compactor) choose(ctx context.Context) error {
	for _, name := range c.Packs {
		c.packs[name] = &sparsePack{name: name}
	}
	tables, err := c.tables(ctx)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(c.packs)) {
		keep, err := c.open(ctx, c.packs[name])
		if err != nil {
			return err
		}
		if !keep {
			delete(c.packs, name)
		}
	}
	for i, l := range slices.Sorted(maps.Keys(tables)) {
		c.Progress("References", int64(i), int64(len(tables)))
		if slices.ContainsFunc(tables[l], func(p PackRef) bool { return c.packs[p.Name] != nil }) {
			if err := c.references(ctx, l); err != nil {
				return err
			}
		}
	}
	return nil
}

// tables reads the pack tables of all backups.
func (c *compactor) tables(ctx context.Context) (map[Label][]PackRef, error) {
	labels, err := c.repo.labels(ctx)
	if err != nil {
		return nil, err
	}
	var s container.Scratch
	defer s.Close()
	tables := map[Label][]PackRef{}
	for _, l := range labels {
		m, err := c.repo.openManifest(ctx, l, &s)
		if err != nil {
			return nil, fmt.Errorf("nothing is compacted while a manifest cannot be read: %w", err)
		}
		for _, ref := range m.Packs {
			if p := c.packs[ref.Name]; p != nil {
				p.needed, p.most = true, max(p.most, ref.Live)
				tables[l] = append(tables[l], ref)
			}
		}
		_ = m.Close()
	}
	return tables, nil
}

// open reads the index of a pack and reports whether it may be mostly dead.
func (c *compactor) open(ctx context.Context, p *sparsePack) (bool, error) {
	if !p.needed {
		return false, context.Cause(ctx) // a collection removes it
	}
	set := c.repo.PackSet([]PackRef{{Name: p.name}}, 1)
	defer set.Close()
	plain := int64(0)
	err := set.Use(ctx, 0, func(r *container.Reader) error {
		for i := range r.Frames() {
			f := r.Frame(i)
			p.frames = append(p.frames, frameSize{f.Plain, f.Stored})
			if !f.Dropped() {
				plain += int64(f.Plain)
			}
		}
		// Never written again with less protection than it has.
		if r.Header().Cipher > c.repo.Cipher() {
			plain = 0
		}
		return nil
	})
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	p.used = make([]bool, len(p.frames))
	return err == nil && float64(p.most) <= float64(plain)*(1-c.Share), nil
}

// references marks the frames that a backup needs.
func (c *compactor) references(ctx context.Context, l Label) error {
	m, err := c.repo.OpenManifest(ctx, l)
	if err != nil {
		return err
	}
	defer func() { _ = m.Close() }()
	packs := make([]*sparsePack, len(m.Packs))
	for i, ref := range m.Packs {
		packs[i] = c.packs[ref.Name]
	}
	for f, err := range m.Files() {
		if err := errors.Join(err, context.Cause(ctx)); err != nil {
			return err
		}
		for _, x := range f.Extents {
			if p := packs[x.Pack]; p != nil {
				p.use(x)
			}
		}
	}
	return nil
}

func (p *sparsePack) use(x Extent) {
	for frame, left := x.Frame, x.Length+x.Skip; left > 0 && frame < len(p.frames); frame++ {
		p.used[frame] = true
		left -= int64(p.frames[frame].Plain)
	}
}

// run compacts what pays, as far as the budget goes.
func (c *compactor) run(ctx context.Context) error {
	var worth []*sparsePack
	total := int64(0)
	for _, p := range c.packs {
		live, dead := p.weigh()
		if dead > 0 && float64(dead) >= c.Share*float64(live+dead) {
			worth = append(worth, p)
			total += live
		}
	}
	slices.SortFunc(worth, func(a, b *sparsePack) int {
		aLive, aDead := a.weigh()
		bLive, bDead := b.weigh()
		return cmp.Or(cmp.Compare(float64(aLive)/float64(aDead), float64(bLive)/float64(bDead)), strings.Compare(a.name, b.name))
	})
	for _, p := range worth {
		live, dead := p.weigh()
		if c.done.Copied+live > c.Budget {
			c.done.Waiting++
			continue
		}
		c.Progress("Compact", c.done.Copied, min(total, c.Budget))
		err := c.compact(ctx, p)
		var damaged *container.DamagedError
		if errors.As(err, &damaged) {
			continue // for verify to report
		}
		if err != nil {
			return err
		}
		c.done.Packs++
		c.done.Copied += live
		c.done.Freed += dead
	}
	return nil
}

// compact makes the next generation of a pack and removes those before.
func (c *compactor) compact(ctx context.Context, p *sparsePack) error {
	generations, err := c.repo.generations(ctx, path.Base(path.Dir(p.name)))
	if err != nil {
		return err
	}
	objects := generations[p.name]
	if len(objects) == 0 {
		return &fs.PathError{Op: "compact", Path: p.name, Err: fs.ErrNotExist}
	}
	_, newest := generationOf(objects[len(objects)-1])
	if err := c.copy(ctx, p, fmt.Sprintf("%s.%d", p.name, newest+1)); err != nil {
		return err
	}
	for _, o := range objects {
		if err := c.repo.engine.Delete(ctx, o); err != nil {
			return err
		}
	}
	return nil
}

// copy makes object of the frames of a pack that are needed.
func (c *compactor) copy(ctx context.Context, p *sparsePack, object string) error {
	stage, err := c.repo.engine.Stage(ctx, OwnerJob)
	if err != nil {
		return err
	}
	defer func() { _ = stage.Abort() }()
	up, err := stage.Create(ctx, object)
	if err != nil {
		return err
	}
	set := c.repo.PackSet([]PackRef{{Name: p.name}}, 1)
	defer set.Close()
	err = set.Use(ctx, 0, func(r *container.Reader) error {
		w, err := c.repo.NewContainer(up, object, container.Pack, r.Header().Codec)
		if err != nil {
			return err
		}
		return p.write(ctx, r, w)
	})
	if err != nil {
		return err
	}
	if err := up.Close(); err != nil {
		return err
	}
	return stage.Commit(ctx)
}

// write copies the frames that are needed. Every one is checked, so that no damage gets
// a new seal.
func (p *sparsePack) write(ctx context.Context, r *container.Reader, w *container.Writer) error {
	var s container.Scratch
	defer s.Close()
	for i := range p.frames {
		f := r.Frame(i)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !p.used[i] {
			w.DropFrame(f)
			continue
		}
		encoded, _, err := r.ReadEncoded(i, &s)
		if err != nil {
			return err
		}
		f.Stored = uint32(len(encoded))
		if _, err := w.WriteFrame(encoded, f); err != nil {
			return err
		}
	}
	return w.Finish()
}
