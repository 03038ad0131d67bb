package config

import (
	"fmt"
	"strconv"
	"strings"
)

// A Codec is a compression algorithm. Its number is the one of the management protocol.
type Codec int

// Codecs.
const (
	None  Codec = 0
	Gzip  Codec = 1
	Zstd  Codec = 2
	LZ4   Codec = 3
	Bzip2 Codec = 4
)

// String returns the word of pgmoneta.conf.
func (c Codec) String() string {
	return enumName(c, codecNames)
}

var codecNames = map[Codec]string{None: "none", Gzip: "gzip", Zstd: "zstd", LZ4: "lz4", Bzip2: "bz2"}

// levels returns the range of compression_level.
func (c Codec) levels() (lowest, highest int, ok bool) {
	switch c {
	case Gzip, Bzip2:
		return 1, 9, true
	case Zstd:
		return -131072, 22, true
	case LZ4:
		return 1, 12, true
	}
	return 0, 0, false
}

// A TLSMode says whether remote clients may or must encrypt their connection.
type TLSMode int

// Values of tls.
const (
	TLSOff     TLSMode = 0
	TLSOn      TLSMode = 1 // for clients that ask for it, as in C pgmoneta
	TLSRequire TLSMode = 2 // clear text is refused
)

// String returns the word of the key.
func (m TLSMode) String() string {
	return enumName(m, map[TLSMode]string{TLSOff: "off", TLSOn: "on", TLSRequire: "require"})
}

// A WALSync says when received WAL is made durable and acknowledged.
type WALSync int

// Values of wal_sync.
const (
	WALSyncAuto   WALSync = 0 // at once while commits may be waiting for it, else every wal_flush_interval
	WALSyncAlways WALSync = 1 // at once
)

// String returns the word of the key.
func (w WALSync) String() string {
	return enumName(w, map[WALSync]string{WALSyncAuto: "auto", WALSyncAlways: "always"})
}

// An OnGap says what happens when WAL is gone that the archive still needed.
type OnGap int

// Values of on_gap. The hole is recorded and reported in every case.
const (
	OnGapBackup   OnGap = 0 // receive on after the hole, and take a full backup
	OnGapContinue OnGap = 1 // receive on after the hole
	OnGapStop     OnGap = 2 // receive nothing until an operator acts
)

// String returns the word of the key.
func (g OnGap) String() string {
	return enumName(g, map[OnGap]string{OnGapBackup: "backup", OnGapContinue: "continue", OnGapStop: "stop"})
}

// A BackupSource says how a backup reads the data directory.
type BackupSource int

// Values of backup_source.
const (
	BackupSourceUnset  BackupSource = 0 // that of the main section, and there auto
	BackupSourceAuto   BackupSource = 1 // the data directory when it is on this machine, else the stream
	BackupSourceStream BackupSource = 2 // BASE_BACKUP
	BackupSourceFiles  BackupSource = 3 // the data directory on this machine
	BackupSourceSQL    BackupSource = 4 // functions of the server over several connections
)

// String returns the word of the key.
func (b BackupSource) String() string {
	return enumName(b, map[BackupSource]string{BackupSourceUnset: "", BackupSourceAuto: "auto", BackupSourceStream: "stream",
		BackupSourceFiles: "files", BackupSourceSQL: "sql"})
}

// A WALKeep says which WAL is kept for backups older than the time that can be restored to without a gap.
type WALKeep int

// Values of wal_keep.
const (
	WALKeepUnset  WALKeep = 0 // that of the main section, and there needed
	WALKeepNeeded WALKeep = 1 // what makes them consistent
	WALKeepAll    WALKeep = 2 // everything after the oldest of them
)

// String returns the word of the key.
func (w WALKeep) String() string {
	return enumName(w, map[WALKeep]string{WALKeepUnset: "", WALKeepNeeded: "needed", WALKeepAll: "all"})
}

// A Target says which member of a cluster is followed.
type Target int

// Values of target.
const (
	TargetUnset   Target = 0 // the primary of several hosts, whatever a single one is
	TargetAny     Target = 1
	TargetPrimary Target = 2
	TargetStandby Target = 3 // the primary if there is no standby
)

// String returns the word of the key.
func (t Target) String() string {
	return enumName(t, map[Target]string{TargetUnset: "", TargetAny: "any", TargetPrimary: "primary", TargetStandby: "standby"})
}

// A Compression is the value of the key compression: which codec, and whether PostgreSQL also uses it on the wire.
type Compression struct {
	Codec  Codec
	Server bool // BASE_BACKUP is asked to compress
}

// Code returns the number used in JSON documents: 0 none, 17 .. 20 client side, 33 .. 35 server side.
func (c Compression) Code() int {
	switch {
	case c.Codec == None:
		return 0
	case c.Server:
		return 32 + int(c.Codec)
	}
	return 16 + int(c.Codec)
}

// String returns the shortest word of pgmoneta.conf, such as "zstd" or "server-gzip".
func (c Compression) String() string {
	if c.Server && c.Codec != None {
		return "server-" + c.Codec.String()
	}
	return c.Codec.String()
}

// CompressionFromCode is the inverse of [Compression.Code].
func CompressionFromCode(code int) (Compression, error) {
	for _, c := range []Codec{None, Gzip, Zstd, LZ4, Bzip2} {
		for _, server := range []bool{false, true} {
			if got := (Compression{c, server}); got.Code() == code && (!server || c != Bzip2) {
				return got, nil
			}
		}
	}
	return Compression{}, fmt.Errorf("%d is not the code of a compression", code)
}

// An Encryption is the cipher of stored data; its number is the one of JSON documents and of the management protocol.
type Encryption int

// Ciphers.
const (
	EncryptionNone Encryption = 0
	AES256         Encryption = 1
	AES192         Encryption = 2
	AES128         Encryption = 3
)

// String returns the full word, such as "aes-256-gcm".
func (e Encryption) String() string {
	return enumName(e, map[Encryption]string{EncryptionNone: "none", AES256: "aes-256-gcm", AES192: "aes-192-gcm", AES128: "aes-128-gcm"})
}

// KeySize returns the size of the key in bytes, 0 without encryption.
func (e Encryption) KeySize() int {
	switch e {
	case AES256:
		return 32
	case AES192:
		return 24
	case AES128:
		return 16
	}
	return 0
}

// A Tristate is a truth value that may be left to another section. Its number is the one of create_slot in JSON documents.
type Tristate int

// Values of a Tristate.
const (
	Unset Tristate = 0
	Yes   Tristate = 1
	No    Tristate = 2
)

// String returns "undefined", "yes" or "no".
func (t Tristate) String() string {
	return enumName(t, map[Tristate]string{Unset: "undefined", Yes: "yes", No: "no"})
}

// A StorageEngine is a set of storage engines, one bit each.
type StorageEngine int

// Storage engines.
const (
	StorageLocal StorageEngine = 1
	StorageSSH   StorageEngine = 2
	StorageS3    StorageEngine = 4
	StorageAzure StorageEngine = 8
)

// Has reports whether all engines of e2 are in e.
func (e StorageEngine) Has(e2 StorageEngine) bool { return e&e2 == e2 }

// String returns the names, separated by ", ".
func (e StorageEngine) String() string {
	var names []string
	for _, engine := range storageEngines {
		if e.Has(engine.value) {
			names = append(names, engine.word)
		}
	}
	return strings.Join(names, ", ")
}

var storageEngines = []word[StorageEngine]{
	{"local", StorageLocal}, {"ssh", StorageSSH}, {"s3", StorageS3}, {"azure", StorageAzure},
}

// LogType says where log lines go.
type LogType int

// Log types.
const (
	LogConsole LogType = 0
	LogFile    LogType = 1
	LogSyslog  LogType = 2
)

// String returns the word of the key log_type.
func (t LogType) String() string {
	return enumName(t, map[LogType]string{LogConsole: "console", LogFile: "file", LogSyslog: "syslog"})
}

// LogMode says what happens to a log file that exists.
type LogMode int

// Log modes.
const (
	LogCreate LogMode = 0 // emptied when the daemon opens it
	LogAppend LogMode = 1
)

// String returns the word of the key log_mode.
func (m LogMode) String() string {
	return enumName(m, map[LogMode]string{LogCreate: "create", LogAppend: "append"})
}

// HugePage is the value of the key hugepage.
type HugePage int

// Values of hugepage.
const (
	HugePageOff HugePage = 0
	HugePageTry HugePage = 1
	HugePageOn  HugePage = 2
)

// String returns the word of the key.
func (h HugePage) String() string {
	return enumName(h, map[HugePage]string{HugePageOff: "off", HugePageTry: "try", HugePageOn: "on"})
}

// DirectIO is the value of the key direct_io.
type DirectIO int

// Values of direct_io.
const (
	DirectIOOff  DirectIO = 0
	DirectIOAuto DirectIO = 1
	DirectIOOn   DirectIO = 2
)

// String returns the word of the key.
func (d DirectIO) String() string {
	return enumName(d, map[DirectIO]string{DirectIOOff: "off", DirectIOAuto: "auto", DirectIOOn: "on"})
}

// ProcessTitle is the value of the key update_process_title.
type ProcessTitle int

// Values of update_process_title.
const (
	TitleNever   ProcessTitle = 0
	TitleStrict  ProcessTitle = 1
	TitleMinimal ProcessTitle = 2
	TitleVerbose ProcessTitle = 3
)

// String returns the word of the key.
func (t ProcessTitle) String() string {
	return enumName(t, map[ProcessTitle]string{TitleNever: "never", TitleStrict: "strict", TitleMinimal: "minimal", TitleVerbose: "verbose"})
}

// A Retention says how long backups are kept: all of the last Days days, then one for each of Weeks weeks, Months months and Years years.
// 0 is unset.
type Retention struct{ Days, Weeks, Months, Years int }

// String returns the four fields, unset ones as a dash: "7,-,-,-".
func (r Retention) String() string {
	fields := []string{"-", "-", "-", "-"}
	for i, n := range []int{r.Days, r.Weeks, r.Months, r.Years} {
		if n > 0 {
			fields[i] = strconv.Itoa(n)
		}
	}
	return strings.Join(fields, ",")
}

// or returns r with its unset fields taken from other.
func (r Retention) or(other Retention) Retention {
	return Retention{
		Days:   firstPositive(r.Days, other.Days),
		Weeks:  firstPositive(r.Weeks, other.Weeks),
		Months: firstPositive(r.Months, other.Months),
		Years:  firstPositive(r.Years, other.Years),
	}
}

func firstPositive(a, b int) int {
	if a > 0 {
		return a
	}
	return b
}

// enumName returns the word of a value, or its number when it has none.
func enumName[T ~int](value T, names map[T]string) string {
	if name, ok := names[value]; ok {
		return name
	}
	return strconv.Itoa(int(value))
}
