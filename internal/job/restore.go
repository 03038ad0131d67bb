package job

import (
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// A RestoreSpec says how and where to a backup is restored. Its zero value, but for the
// directory, is a restore with every default.
type RestoreSpec struct {
	Position  string
	Directory string // absolute
	Exact     bool   // Directory is the data directory itself, not where it is made
	Delta     bool   // it may hold a data directory, which is made into the restored one
	DryRun    bool   // only plan

	WAL                string   // how recovery gets WAL: "command", "copy", empty for the first that works
	WALDirectory       string   // where pg_wal goes; empty for into the data directory
	Tablespaces        []string // "name, OID or path=directory"
	TablespacesInPlace bool     // where they were on the server
	Owner              string   // "user[:group]"

	Workers int   // 0 = as configured
	MaxRate int64 // bytes per second, 0 = unlimited
}

// A RestoreReport tells what a restore will do, or did. Sizes are bytes.
type RestoreReport struct {
	Backup       *repo.Summary // nil when there is none for the target
	Target       string        // with every default that was decided
	Timeline     pg.Timeline
	Directory    string
	WALDirectory string // empty when pg_wal is part of Directory
	Tablespaces  []RestoredTablespace
	Delta        bool // over what is there

	WALStart  pg.LSN
	WALEnd    pg.LSN
	Segments  int // that recovery reads
	Copied    int // of them that are written to pg_wal
	Supply    string
	SupplyWhy string
	Signal    string
	Settings  []string // lines of postgresql.auto.conf

	Holes    []RestoreHole
	Problems []string       // why it cannot be done; empty when it can
	Nearest  []RestorePoint // what could be reached instead

	Read  int64 // from the repository: planned, at most; done, what was read of our own format
	Write int64 // to the target, as Read
	Need  int64 // of Free
	Free  int64

	Estimate  time.Duration // until PostgreSQL can be started
	Speed     int64         // bytes per second
	SpeedFrom string        // where Speed was taken from
}

// A RestoredTablespace is a tablespace and where it goes.
type RestoredTablespace struct {
	OID       uint32
	Name      string
	Directory string
}

// A RestoreHole is WAL on the way to the target that is not archived.
type RestoreHole struct {
	Timeline pg.Timeline
	From     pg.LSN
	To       pg.LSN
}

// A RestorePoint is a backup and a position that it can be restored to.
type RestorePoint struct {
	Backup   repo.Label
	Position string
}
