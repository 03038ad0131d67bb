package supervisor

import (
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/metrics"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/internal/shmem"
)

// silence is how long a server that streams may say nothing before that counts as not knowing: it answers at least
// twice as often.
const silence = time.Minute

// reached returns the moment up to which everything that was committed on a server is on stable storage here; zero
// when that is not known.
func reached(snap shmem.ServerSnapshot, now time.Time) time.Time {
	switch {
	case !snap.FlushLagSince.IsZero():
		return snap.FlushLagSince
	case snap.Streaming && now.Sub(snap.LastMessage) < silence:
		return now
	default:
		return snap.LastMessage
	}
}

// recovery tells what could be restored if the server were gone: the unbroken time that the newest backup belongs to.
// A hole behind that backup ends it, a hole before it begins it.
func recovery(backups []repo.Backup, holes []repo.Hole, snap shmem.ServerSnapshot, now time.Time) metrics.Recovery {
	newest := -1
	for i := range backups {
		if backups[i].Err == nil {
			newest = i
		}
	}
	if newest < 0 {
		return metrics.Recovery{}
	}
	r := metrics.Recovery{Start: backups[newest].Summary.StoppedAt, End: reached(snap, now), Known: snap.ServerLSN != 0}
	have := snap.FlushedLSN
	var before []repo.Hole // holes behind which the newest backup begins
	for _, h := range holes {
		if followed(h, backups[newest:newest+1]) {
			before = append(before, h)
			continue
		}
		if h.NoticedAt.Before(r.End) {
			r.End = h.NoticedAt
		}
		have = min(have, uint64(h.From))
	}
	for i := newest - 1; i >= 0 && behindAll(backups[i], before); i-- {
		if backups[i].Err == nil {
			r.Start = backups[i].Summary.StoppedAt
		}
	}
	if stopped := backups[newest].Summary.StoppedAt; r.End.Before(stopped) {
		r.End = stopped
	}
	if snap.ServerLSN > have {
		r.Lost = snap.ServerLSN - have
	}
	return r
}

// behindAll reports whether a backup begins behind all of these holes, or cannot tell.
func behindAll(b repo.Backup, holes []repo.Hole) bool {
	for _, h := range holes {
		if b.Err == nil && !followed(h, []repo.Backup{b}) {
			return false
		}
	}
	return true
}
