package metrics

import "time"

// A Source knows the present state of the daemon.
type Source interface {
	// Snapshot returns the state now. It is called once per scrape, from several goroutines at
	// the same time, and must not wait for servers or disks. The result is not changed afterwards.
	Snapshot() Snapshot
}

// A Snapshot is the state of the daemon at one moment.
type Snapshot struct {
	Version     string
	Now         time.Time
	FIPS        bool // our cryptography is validated
	Log         LogCounts
	Retention   Retention
	Compression int // configuration code: 0 none, 17 gzip, 18 zstd, 19 lz4, 20 bzip2, 33 to 35 on the server
	Storage     Storage
	Requests    []StorageRequests // one for each operation
	Reload      Reload
	Certificate []Certificate
	Servers     []Server // names are unique
}

// LogCounts are the lines logged since the start or the last reset of the counters.
type LogCounts struct {
	Info, Warn, Error, Fatal uint64
}

// Retention is how long backups are kept. Zero or less means unset.
type Retention struct {
	Days, Weeks, Months, Years int
}

// Storage is the file system below base_dir, in bytes.
type Storage struct {
	Used  uint64 // by base_dir
	Free  uint64 // for us
	Total uint64 // of the file system

	Forecast Forecast
}

// A Forecast is how a file system goes on if it goes on as it did.
type Forecast struct {
	Known  bool
	Growth float64 // bytes per second
	Full   float64 // seconds until nothing is free, +Inf if it does not grow
}

// StorageRequests are the requests of one kind to the storage engine, of all servers since the start.
type StorageRequests struct {
	Engine    string
	Operation string
	Failed    uint64
	Elapsed   Distribution
}

// A Usage is what the backups of a server take, in bytes.
type Usage struct {
	Logical uint64 // that all backups would restore
	Stored  uint64 // packs and manifests
	Shared  uint64 // of that, used by more than one backup
	Dead    uint64 // of that, used by none
}

// A Server is one PostgreSQL server of the configuration.
type Server struct {
	Name      string
	Online    bool // we regard it as usable
	Primary   bool // it is not in recovery
	Valid     bool // it meets the requirements
	Checksums bool // of data pages
	Summarize bool // summarize_wal is on
	Timeline  uint32
	Timelines []Timeline // the present one and those before it, ascending, without timeline 1
	Workers   int        // as effective
	Retention Retention  // as effective
	WAL       WAL
	Active    Active
	Progress  Progress
	Operation Operations

	Workspace  Directory // where rehearsals restore
	HotStandby Directory // directories that are kept as copies of the newest backup
	Shipping   Shipping

	Backups     []Backup // ascending by label
	BackupBytes uint64   // all backups of the server as stored
	TotalBytes  uint64   // everything stored of the server
	UsedBytes   uint64   // of its repository on disk, 0 before it was measured
	Usage       *Usage   // nil while it is not known

	LastFull        time.Time  // end of the last full backup that succeeded, zero if none
	LastIncremental time.Time  // end of the last incremental one
	Rehearsal       *Rehearsal // the last one, nil if there was none
	Verified        *Verified  // the last one, nil if there was none
	BackupDue       time.Time  // of the first backup that the schedule has after the last good one, zero if there is none
	Recovery        Recovery
	CatalogProblem  bool  // the list of backups could not be read
	Jobs            []Job // that ended since the start, one for each kind and outcome
	Running         []string
	// Failures counts backups that failed since the start, by a reason out of a small fixed set.
	Failures map[string]uint64
}

// WAL is the state of one WAL receiver. Positions are LSNs; 0 means unknown.
type WAL struct {
	Streaming bool
	Slot      string // replication slot, "" without one
	File      string // being written, such as 000000010000000000000042.partial

	Written uint64 // received and written
	Flushed uint64 // on stable storage and reported
	Stored  uint64 // end of the last segment in the repository
	Server  uint64 // end of WAL on the server

	LagBytes     uint64    // from Flushed to Server; shown only while Server is known
	LagSeconds   float64   // age of the oldest byte in between; shown only while Server is known
	LastReceived time.Time // of the last WAL byte, zero if none

	ReceivedBytes uint64 // since the start
	Restarts      uint64 // of the worker
	Reconnects    uint64 // of the replication connection
	Errors        uint64 // that ended streaming

	Segments uint64 // finished segments in the repository
	Bytes    uint64 // their size as stored
	Gaps     Gaps

	Flushes    Distribution // how long it took to make WAL durable
	StoreQueue int          // segments received and not yet stored

	SlotState    string // wal_status of the slot or "missing", "" while unknown
	SlotRetained uint64 // WAL the server keeps for the slot, in bytes

	Shipping        bool    // a second copy of every segment is wanted
	ShipLagSegments int     // stored and not yet copied
	ShipLagBytes    uint64  // of WAL in them
	ShipLagSeconds  float64 // how long there has been something to copy
}

// Gaps are the recorded holes of one archive.
type Gaps struct {
	Count int
	Bytes uint64    // of WAL in them
	Last  time.Time // when the newest was noticed, zero if none
}

// A Distribution counts durations by length.
type Distribution struct {
	Buckets []Bucket // ascending, the last without a bound
	Sum     time.Duration
}

// A Bucket counts the durations up to a bound that are in no bucket before it.
type Bucket struct {
	Bound time.Duration // 0 for none
	Count uint64
}

// Recovery is what could be restored if the server were gone now.
type Recovery struct {
	// Start and End are the first and the last moment of the unbroken time that ends with the newest
	// backup and the WAL behind it; zero when there is no backup to begin with.
	Start, End time.Time
	// Lost are the bytes of WAL on the server that are not in there. Known tells whether they are.
	Lost  uint64
	Known bool
}

// Verified is what the last verification of a backup came to.
type Verified struct {
	At       time.Time // when it ended
	Files    int       // that were read
	BadFiles int
	Good     bool
}

// A Job is what ended of one kind with one outcome, since the start.
type Job struct {
	Kind    string
	Failed  bool
	Count   uint64
	Last    time.Time     // when the last one ended
	Elapsed time.Duration // of the last one
}

// A Certificate is one that a listener shows.
type Certificate struct {
	Listener string
	NotAfter time.Time
}

// Reload is the last attempt to read the configuration again.
type Reload struct {
	At   time.Time // of the last one that succeeded; the start counts as one
	Good bool      // the last one succeeded
}

// A Rehearsal is what the last rehearsed restore of a server came to.
type Rehearsal struct {
	At           time.Time // when it began
	Proven       bool
	Started      bool // PostgreSQL accepted connections
	RTO          time.Duration
	Restore      time.Duration
	RestoreBytes uint64
	Replay       time.Duration
	ReplayBytes  uint64
}

// A Timeline is one of a server's history.
type Timeline struct {
	ID     uint32
	Parent uint32
	Switch uint64 // LSN at which it left its parent
}

// A Directory is measured from time to time, in bytes; all is 0 where there is none.
type Directory struct {
	Used  uint64 // by what is in it
	Free  uint64 // for us
	Total uint64 // of its file system
}

// Shipping is the directory that gets a second copy of WAL.
type Shipping struct {
	WAL       uint64 // bytes of WAL in it
	Directory        // as a whole
}

// Progress is how far the job of a server is.
type Progress struct {
	Workflow, Phase string        // words of pgmoneta 0.22; an idle server says "Backup" and "Unknown"
	Done, Total     uint64        // bytes; Total is 0 while nobody knows
	Elapsed         time.Duration // since the job began, 0 for none
}

// Operations counts what clients asked for about a server, since the start.
type Operations struct {
	Succeeded, Failed         uint64
	LastSucceeded, LastFailed time.Time // zero for never
}

// Active tells which jobs run on a server.
type Active struct {
	Backup, Restore, Archive, Delete, Retention bool
}

// A Backup is one backup of the catalog.
type Backup struct {
	Label       string // 14 digits
	Valid       bool
	Keep        bool
	Incremental bool
	Major       int
	Minor       int
	Elapsed     time.Duration
	Base        time.Duration // until the server had sent everything

	StoredBytes  uint64 // as it lies in the repository
	RestoreBytes uint64 // after a restore

	StartLSN      uint64
	CheckpointLSN uint64
	EndLSN        uint64
	StartTimeline uint32
	EndTimeline   uint32
}
