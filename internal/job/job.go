// Package job is the contract between the supervisor and its workers: what a
// worker is told when it starts, and what a job answers when it is done.
//
// The supervisor sends one message [KindStart]. A WAL worker then runs until it
// is told [KindStop] or the control socket closes. A job worker answers with one
// [KindResult] and ends; [KindStop] and [KindCancel] end it early.
//
// Messages carry the password of the server's user. They travel over a socket
// pair of the two processes and nowhere else.
package job

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/pgrepl"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/internal/vault"
)

// Kinds of messages on the control socket.
const (
	KindStart  = "start"  // to the worker: a [Start]
	KindStop   = "stop"   // to the worker, without a body: it is not needed any more
	KindCancel = "cancel" // to a job worker, without a body: somebody does not want the job
	KindResult = "result" // from a job worker: a [Result]
)

// A Kind is the kind of work a worker does.
type Kind string

// Kinds of work. Receive is that of a WAL worker, the others are jobs.
const (
	Receive Kind = "wal"
	Backup  Kind = "backup"
	Restore Kind = "restore"
	// PlanRestore only tells what Restore would do, beside any other job.
	PlanRestore Kind = "restoreplan"
	Verify      Kind = "verify"
	Delete      Kind = "delete"
	// CheckWAL runs beside any other job, because it needs no lock.
	CheckWAL  Kind = "walcheck"
	CheckRepo Kind = "repocheck"
	Rehearse  Kind = "rehearse"
	Archive   Kind = "archive"
	Retention Kind = "retention"
	// PlanRetention only tells what Retention would do, beside any other job.
	PlanRetention Kind = "retentionplan"
	// Usage finds out what the backups take, beside any other job.
	Usage Kind = "usage"
	// Compact writes packs that are mostly dead again, within a budget.
	Compact Kind = "compact"

	// Those about one file of this machine belong to no server.
	Encrypt    Kind = "encrypt"
	Decrypt    Kind = "decrypt"
	Compress   Kind = "compress"
	Decompress Kind = "decompress"
)

// OfFile reports whether a job is about one file and belongs to no server.
func (k Kind) OfFile() bool {
	return k == Encrypt || k == Decrypt || k == Compress || k == Decompress
}

// Beside reports whether a job runs beside others, because it needs no lock.
func (k Kind) Beside() bool { return k == CheckWAL || k.Quiet() }

// Quiet reports whether a job only looks, so often that nobody wants to hear of it.
func (k Kind) Quiet() bool { return k == PlanRestore || k == PlanRetention || k == Usage }

// Kinds lists the kinds in the order of their numbers in the shared segment,
// which begin at 1.
var kinds = [...]Kind{Receive, Backup, Restore, Verify, Delete, CheckWAL, CheckRepo, Rehearse, Archive, Retention, PlanRetention, Usage, Compact, Encrypt, Decrypt, Compress, Decompress, PlanRestore}

// Number returns the number of a kind in the shared segment.
func (k Kind) Number() int {
	for i, have := range kinds {
		if have == k {
			return i + 1
		}
	}
	return 0
}

// KindOf returns the kind of a number of the shared segment, "" for one that is none.
func KindOf(number int) Kind {
	if number < 1 || number > len(kinds) {
		return ""
	}
	return kinds[number-1]
}

// A Start tells a worker what to do.
type Start struct {
	Kind       Kind
	Server     string // "" for a job about a file
	ServerSlot int    // index in the shared segment
	JobSlot    int    // index in the shared segment; jobs only
	Config     string // pgmoneta.conf, absolute
	BaseDir    string

	Host     string
	Port     int
	Others   []pgrepl.Address
	Target   pgrepl.Target
	User     string
	Password vault.SecretWire
	TLS      pgrepl.TLS

	Slot       string // replication slot
	CreateSlot bool

	WALAlways        bool          // acknowledge at once, whoever waits
	WALFlushInterval time.Duration // while nobody waits
	WALMaxAge        time.Duration // after which a segment is ended early; 0 = never
	OnGap            Gap
	ShipTo           string // directory for copies of segments
	ShipPlain        bool   // plain copies of sealed segments too
	FillFrom         string // directory that holes are filled from

	Codec   container.Codec
	Level   int
	OnWire  bool // the server compresses what it sends
	Cipher  container.Cipher
	Master  vault.MasterWire // zero for none
	Keyless string           // why there is no master key
	Nice    int              // by how much the process is nicer than the supervisor; jobs only
	Workers int
	MaxRate int64  // bytes per second, 0 = unlimited
	Source  string // word of backup_source
	// CrossCheck is the fraction of blocks that an incremental backup compares, from 0 to 1.
	CrossCheck float64
	Rehearsal  Rehearsal
	Policy     Policy
	// AllowCorrupt keeps backups with pages whose checksums are wrong, and marks them.
	AllowCorrupt bool

	// Run is the number of this job in the history of jobs, and Request that of the client's request that it is done for,
	// from 1 since the start of the daemon; 0 for none. They are in every line that is logged about it.
	Run, Request uint64

	Log LogOptions
	Job Spec
}

// LogAttrs returns what every line about the work has, for log/slog.
func (s *Start) LogAttrs() []any {
	var attrs []any
	if s.Server != "" {
		attrs = append(attrs, "server", s.Server)
	}
	if s.Run > 0 {
		attrs = append(attrs, "run", s.Run)
	}
	if s.Request > 0 {
		attrs = append(attrs, "request", s.Request)
	}
	return attrs
}

// A Gap says what a WAL worker does when WAL is gone that was still needed.
type Gap string

// Gaps.
const (
	GapBackup   Gap = "backup"   // go on after it; the supervisor takes a full backup
	GapContinue Gap = "continue" // go on after it
	GapStop     Gap = "stop"     // receive nothing until an operator acts
)

// LogOptions tell a worker how to log to the descriptor it inherited.
type LogOptions struct {
	Level  int // as log/slog counts
	Prefix string
	Color  bool
	Syslog bool // open syslog instead
	JSON   bool
	// Path, and when it is time for the next file, if the log is one; as in [logging.Options].
	Path         string
	RotationSize int64
	RotationAge  time.Duration
}

// A Rehearsal tells how a restored cluster is started and what it is asked.
type Rehearsal struct {
	Scratch  string // directory for it
	BinDir   string
	Settings string // file
	Checks   string // file
	Amcheck  bool
}

// A Spec describes a job.
type Spec struct {
	Backup   string      // identifier: label, oldest, newest, latest; for a backup that of the base, empty for a full one
	Position string      // rehearse only
	Restore  RestoreSpec // restore and archive only
	Plain    bool        // archive only: also of an encrypted repository
	AllFiles bool        // verify only: list good files too
	Force    bool        // delete only
	Corrupt  bool        // backup only: as [Start.AllowCorrupt], for this one
	Quick    bool        // walcheck and repocheck only: read no content
	Backups  []string    // delete only: identifiers, when it is more than one
	Path     string      // jobs about a file only: absolute
}

// Params returns the connection parameters.
func (s *Start) Params() pgrepl.Params {
	return pgrepl.Params{Server: s.Server, Host: s.Host, Port: s.Port, Others: s.Others, Target: s.Target, User: s.User, Password: s.Password.Secret, TLS: s.TLS}
}

// Keys returns how the repository is sealed.
func (s *Start) Keys() repo.Keys {
	return repo.Keys{Cipher: s.Cipher, Master: func() (*vault.MasterKey, error) {
		if s.Master.IsZero() {
			return nil, errors.New(s.Keyless)
		}
		return s.Master.Key()
	}}
}

// A Class sorts failures into those the protocol has codes for.
type Class string

// Classes of failures.
const (
	Busy     Class = "busy"      // another process holds the repository
	NoBackup Class = "no backup" // the identifier names none
	BadInput Class = "input"     // a position that makes no sense
	BadBase  Class = "base"      // no incremental backup can be based on it
	Retained Class = "retained"  // the keep flag protects the backup
	NoFile   Class = "no file"   // there is no file of that name
	Failed   Class = "failed"
)

// A Failure is why a job failed.
type Failure struct {
	Class   Class
	Message string
}

func (f *Failure) Error() string { return f.Message }

// A Result is what a job answers.
type Result struct {
	Failure *Failure      // nil when the job succeeded
	Backup  *repo.Summary // the backup taken, restored, verified or deleted
	Path    string        // archive, and jobs about a file: the file that was made
	Until   time.Time     // delete: how long it can be brought back; zero when it cannot
	Restore *RestoreReport
	Files   []File      // verify
	Report  []string    // verify: what is wrong, one line each
	WAL     *WALReport  // walcheck
	Repo    *RepoReport // repocheck and usage

	Rehearsal *repo.Rehearsal // rehearse
	Backups   []repo.Label    // deleted ones, when more than one was named
	TakenOver []repo.Label    // delete: backups of C pgmoneta that needed a deleted one, and are ours now

	Verification *repo.Verification // verify
	Retention    *RetentionReport
	Freed        int64 // compact: stored bytes
}

// A File is a row of a verification.
type File struct {
	Directory string
	Name      string
	Original  string // checksum by PostgreSQL's manifest
	Algorithm string // of the checksum; empty for CRC32C
	Problem   string // empty for a good file
}

// Title returns the process title of the worker.
func (s *Start) Title() string {
	return strings.TrimSpace(fmt.Sprintf("pgmoneta: %s %s", s.Kind, s.Server))
}

// Work returns what the worker does, for messages.
func (s *Start) Work() string {
	if s.Server == "" {
		return string(s.Kind)
	}
	return fmt.Sprintf("%s of server %q", s.Kind, s.Server)
}
