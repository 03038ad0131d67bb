package backup

import (
	"context"
	"encoding/binary"
	"errors"
	"sort"
	"sync"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// known are the frames that need not be stored again: those of the packs that the
// base refers to, and those that this backup has stored so far. It takes 20 bytes
// per frame and 6 to 12 for finding it by its print.
//
// Packs are numbered in the order in which they were begun, the base's first, so
// that a row of the base's pack table is the number of the pack. One goroutine
// begins packs and adds frames; any may find.
type known struct {
	packs []knownPack // used by the adding goroutine only

	mu     sync.RWMutex
	chunks [][]knownFrame // all but the last are full; never moved, so that nothing is copied when they grow
	count  int
	slots  []uint32 // open addressing by print: frame + 1, or 0
}

type knownPack struct {
	name  string
	first int // its first frame
}

type knownFrame struct {
	print container.Print
	plain uint32
}

const chunkFrames = 1 << 12

func newKnown() *known { return &known{slots: make([]uint32, 1<<10)} }

// load adds the frames of all packs of a base. Opening a pack proves that it is
// there, has its full length and an undamaged index.
func (k *known) load(ctx context.Context, r *repo.Repository, packs []repo.PackRef) error {
	set := r.PackSet(packs, 1)
	defer set.Close()
	for i, ref := range packs {
		k.begin(ref.Name)
		err := set.Use(ctx, i, func(p *container.Reader) error {
			for n := range p.Frames() {
				k.add(p.Frame(n)) // one that was dropped has no print, and keeps its number
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// loadUnfinished adds the frames of packs that interrupted backups have stored and that
// the base does not refer to, but not of those that new frames may not be found in.
func (k *known) loadUnfinished(ctx context.Context, r *repo.Repository, damaged map[string]bool) (packs int, err error) {
	refs, err := r.UnfinishedPacks(ctx)
	if err != nil {
		return 0, err
	}
	have := map[string]bool{}
	for _, p := range k.packs {
		have[p.name] = true
	}
	set := r.PackSet(refs, 1)
	defer set.Close()
	for i, ref := range refs {
		if have[ref.Name] || damaged[ref.Name] {
			continue
		}
		err := set.Use(ctx, i, func(p *container.Reader) error {
			if p.Header().Cipher < r.Cipher() {
				return nil
			}
			packs++
			k.begin(ref.Name)
			for n := range p.Frames() {
				k.add(p.Frame(n))
			}
			return nil
		})
		var damage *container.DamagedError
		if err != nil && !errors.As(err, &damage) {
			return packs, err
		}
	}
	return packs, nil
}

// begin starts a pack, to which the frames that are added now belong.
func (k *known) begin(name string) {
	k.packs = append(k.packs, knownPack{name: name, first: k.count})
}

// add appends a frame of the current pack and returns it.
func (k *known) add(f container.Frame) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.count%chunkFrames == 0 {
		k.chunks = append(k.chunks, make([]knownFrame, 0, chunkFrames))
	}
	last := &k.chunks[len(k.chunks)-1]
	*last = append(*last, knownFrame{print: f.Print, plain: f.Plain})
	k.count++
	if 3*k.count > 2*len(k.slots) {
		k.grow()
	}
	k.enter(k.count - 1)
	return k.count - 1
}

func (k *known) frame(i int) *knownFrame { return &k.chunks[i/chunkFrames][i%chunkFrames] }

func (k *known) grow() {
	k.slots = make([]uint32, 2*len(k.slots))
	for i := range k.count - 1 {
		k.enter(i)
	}
}

// enter makes a frame findable, unless an equal one is: then that serves. One without a
// print is not to be found.
func (k *known) enter(i int) {
	if k.frame(i).print == (container.Print{}) {
		return
	}
	if at, found := k.slot(k.frame(i).print); !found {
		k.slots[at] = uint32(i + 1)
	}
}

// slot returns where a print is, or where it would be.
func (k *known) slot(print container.Print) (at int, found bool) {
	mask := len(k.slots) - 1
	at = int(binary.LittleEndian.Uint64(print[:])) & mask
	for ; k.slots[at] != 0; at = (at + 1) & mask {
		if k.frame(int(k.slots[at]-1)).print == print {
			return at, true
		}
	}
	return at, false
}

// find returns the frame whose plain bytes have this print.
func (k *known) find(print container.Print) (int, bool) {
	if print == (container.Print{}) {
		return 0, false
	}
	k.mu.RLock()
	defer k.mu.RUnlock()
	at, found := k.slot(print)
	if !found {
		return 0, false
	}
	return int(k.slots[at] - 1), true
}

// place returns the pack that holds a frame, and its number in there.
func (k *known) place(frame int) (pack, number int) {
	pack = sort.Search(len(k.packs), func(i int) bool { return k.packs[i].first > frame }) - 1
	return pack, frame - k.packs[pack].first
}

// plain returns the plain length of frame number of a pack, and whether there is one.
func (k *known) plain(pack, number int) (int64, bool) {
	end := k.count
	if pack+1 < len(k.packs) {
		end = k.packs[pack+1].first
	}
	frame := k.packs[pack].first + number
	if frame >= end {
		return 0, false
	}
	return int64(k.frame(frame).plain), true
}
