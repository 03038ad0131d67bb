// Package config reads pgmoneta.conf and pgmoneta_cli.conf, and finds the files of the daemon.
//
// # Terms
//
// A file has one main section, [pgmoneta], and one section for each PostgreSQL server, named as the operator likes. A server
// inherits some values from the main section; [Config.Workers], [Config.Retention] and their like resolve that.
//
// # Guarantees
//
// All 77 keys of pgmoneta 0.22 are known and are checked by their grammar. Everything that is wrong with a file is reported at once, as
// [Errors]: file, line, section, key, value and what is accepted. An unknown key is an error that names the nearest known one.
// Values are never cut to a length and never mixed up: a key that stands twice in one section is an error naming both lines.
//
// A parsed configuration is not changed any more: a reload makes a new one, and [Config.With] returns a copy.
// [Edit] and [Text] change a file and not a configuration: they leave every line as it is but the one they are asked for.
// [Main] and [Server] hold plain exported fields, so that they can be sent to a worker as JSON.
//
// # Not guaranteed
//
// Parsing touches nothing but the file itself; only [Config.Validate] looks at the directories that are named in it. It creates nothing: the
// daemon makes base_dir when it is missing.
package config

import (
	"log/slog"
	"slices"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/logging"
	"github.com/pgmoneta/pgmoneta-go/internal/vault"
)

// MainSection is the name of the main section.
const MainSection = "pgmoneta"

// A Config is one parsed pgmoneta.conf. It must not be modified.
type Config struct {
	Path     string // file it was read from
	Main     Main
	Servers  []Server  // in file order
	Warnings []Problem // lines that were understood but have no effect

	env   func(string) (string, bool)
	lines map[place]int // where each key stands, for the messages of Validate
}

// place is the address of a value inside a file. An empty key is the section header.
type place struct{ section, key string }

// Server returns the server with that name.
func (c *Config) Server(name string) (*Server, bool) {
	i := slices.IndexFunc(c.Servers, func(s Server) bool { return s.Name == name })
	if i < 0 {
		return nil, false
	}
	return &c.Servers[i], true
}

// Main is the section [pgmoneta]. Ports are 0 when the listener is off.
type Main struct {
	Host          string // bind address of all TCP listeners, "*" for every address
	UnixSocketDir string
	BaseDir       string

	Metrics             int           // Prometheus port
	MetricsCacheMaxAge  time.Duration // 0 no cache
	MetricsCacheMaxSize int64         // bytes
	MetricsTLS          TLSFiles
	Nagios              int
	Console             int // web console port
	Management          int // remote management port

	Compression      Compression
	CompressionLevel int // within the range of the codec
	Workers          int // 0 none
	MaxRate          int64
	BackupSource     BackupSource
	CrossCheck       int  // percent of the blocks that were not sent to compare in an incremental backup
	AllowCorrupt     bool // keep backups with pages whose checksums are wrong, marked
	JobNice          int  // by how much job workers are nicer than the daemon; 0 leaves all priorities
	Progress         bool
	StorageEngines   StorageEngine
	Encryption       Encryption
	CreateSlot       Tristate

	WALSync          WALSync
	WALFlushInterval time.Duration // while nobody waits
	WALMaxAge        time.Duration // longest time WAL may wait for its segment to fill; 0 = for ever
	WALArchive       string        // directory to fill holes from, empty for none
	OnGap            OnGap

	Retention         Retention
	RetentionInterval time.Duration
	RetentionCount    int           // newest backups that stay
	RetentionMin      int           // newest valid backups that stay; 0 = 1
	RecoveryWindow    time.Duration // of which every moment stays restorable; 0 = what the days of Retention keep
	DeleteDelay       time.Duration // how long a deleted backup can be brought back; 0 = not at all
	WALKeep           WALKeep
	SpaceLow          Space         // of free space: warn
	SpaceCritical     Space         // and refuse base backups
	HookBefore        string        // program that is run before a job
	HookAfter         string        // and after it
	BackupOnStart     bool          // take a full backup of a server without a valid one
	Verification      time.Duration // 0 off
	Workspace         string
	RehearseBinDir    string // directory of PostgreSQL's programs, %v for the major version; empty: where distributions put them
	RehearseAmcheck   bool
	Passfile          string // pgpass file, empty: users file only

	LogType         LogType
	LogLevel        slog.Level
	AuditPath       string // file of who changed what, "" for none
	LogPath         string // strftime pattern
	LogRotationSize int64
	LogRotationAge  time.Duration
	LogLinePrefix   string // strftime pattern
	LogMode         LogMode

	TLS      TLSMode // on the remote management port
	TLSFiles TLSFiles

	BlockingTimeout    time.Duration
	PIDFile            string // empty: see PIDPath
	UpdateProcessTitle ProcessTitle
	Libev              string
	KeepAlive          bool
	NoDelay            bool
	NonBlocking        bool
	Backlog            int
	HugePage           HugePage
	DirectIO           DirectIO
	Link               bool

	SSH   SSH
	S3    S3
	Azure Azure
}

// TLSFiles names the files of one TLS end point. Empty names are unset.
type TLSFiles struct{ CA, Cert, Key string }

// SSH is the storage engine "ssh".
type SSH struct {
	Hostname, Username string
	BaseDir            string
	Ciphers            string // comma list in the words of OpenSSH
	PublicKeyFile      string
	PrivateKeyFile     string
	Port               int // 0: 22
}

// S3 is the storage engine "s3".
type S3 struct {
	UseTLS          bool
	StorageClass    string
	Endpoint        string
	Port            int // 0: default of the protocol
	Region          string
	AccessKeyID     string
	SecretAccessKey vault.SecretWire
	Bucket          string
	BaseDir         string
}

// Azure is the storage engine "azure".
type Azure struct {
	StorageAccount string
	Container      string
	SharedKey      vault.SecretWire
	BaseDir        string
	Endpoint       string
	Port           int  // 0: 443; only with Endpoint
	UseTLS         bool // only with Endpoint; without one TLS is always on
}

// A Server is one server section, as written: values that may be inherited keep their "unset" value here,
// use the methods of [Config] for the effective ones.
type Server struct {
	Name       string
	Host       string // name, address, or directory of a Unix socket; several are separated by commas
	Ports      []int  // one for all hosts, or one for each
	User       string
	WALSlot    string // empty: the server may remove WAL before it was received
	Target     Target
	CreateSlot Tristate
	Follow     string // name of another server
	Passfile   string

	Workspace string

	RehearseChecks   string        // file of queries
	RehearseSettings string        // file of settings
	Retention        Retention     // fields of 0 inherit
	RetentionCount   int           // 0 inherits
	RetentionMin     int           // 0 inherits
	RecoveryWindow   time.Duration // 0 inherits
	DeleteDelay      time.Duration // 0 inherits
	WALKeep          WALKeep       // unset inherits
	BackupOnStart    Tristate      // Unset inherits
	Schedule         Schedule
	ScheduleJitter   time.Duration // by which jobs are spread
	HookBefore       string        // empty inherits
	HookAfter        string        // empty inherits
	Workers          int           // -1 inherits
	MaxRate          int64         // -1 inherits
	Progress         Tristate      // Unset inherits

	BackupSource          BackupSource // unset inherits
	WALArchive            string       // empty inherits
	WALShipping           string
	WALShippingPlain      bool // copies of encrypted segments are plain
	HotStandby            []string
	HotStandbyOverrides   []string // by position of HotStandby
	HotStandbyTablespaces []string // by position of HotStandby
	Extra                 []string

	TLSFiles TLSFiles // towards PostgreSQL
	TLSBound bool     // tls_channel_binding: the password exchange must be bound to the server's certificate
	S3       S3       // fields that are set override those of the main section
}

// Defaults returns the main section of an empty file. home is the value of $HOME, empty when unknown; only the SSH key files depend on it.
func Defaults(home string) Main {
	m := Main{
		Compression:        Compression{Codec: Zstd},
		BackupSource:       BackupSourceAuto,
		CrossCheck:         1,
		JobNice:            10,
		CompressionLevel:   3,
		WALFlushInterval:   200 * time.Millisecond,
		StorageEngines:     StorageLocal,
		Retention:          Retention{Days: 7},
		RehearseAmcheck:    true,
		RetentionInterval:  300 * time.Second,
		LogType:            LogConsole,
		LogLevel:           logging.LevelInfo,
		LogLinePrefix:      logging.DefaultPrefix,
		LogMode:            LogAppend,
		BlockingTimeout:    30 * time.Second,
		UpdateProcessTitle: TitleVerbose,
		KeepAlive:          true,
		NoDelay:            true,
		NonBlocking:        true,
		Backlog:            minBacklog,
		HugePage:           HugePageTry,
		DirectIO:           DirectIOOff,
		Link:               true,
	}
	if home != "" {
		m.SSH.PublicKeyFile = home + "/.ssh/id_rsa.pub"
		m.SSH.PrivateKeyFile = home + "/.ssh/id_rsa"
	}
	return m
}

// minBacklog is the least listen backlog; smaller values are raised to it.
const minBacklog = 16

// newServer returns an empty section that inherits everything.
func newServer(name string) Server {
	return Server{Name: name, Workers: -1, MaxRate: -1}
}
