package config

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/logging"
	"github.com/pgmoneta/pgmoneta-go/internal/vault"
)

// A key describes one key of a section that is parsed into an S.
type key[S any] struct {
	name     string
	path     bool // path mode: environment variables, quotes and backslashes
	restart  bool // a change needs a restart
	worker   bool // a change starts the server's WAL worker again
	settable bool // "conf set" may change it
	secret   bool // never shown

	set func(s *S, value string) error
	get func(s *S) string // in a form that set accepts

	typed func(s *S) any // value of a [Setting]; nil for the text of get
}

// as tells how programs see the value.
func (k key[S]) as(typed func(s *S) any) key[S] { k.typed = typed; return k }

// onRestart marks a key whose change is reported but not applied by a reload.
func (k key[S]) onRestart() key[S] { k.restart = true; return k }

// ofWorker marks a key of a server whose change a reload applies to its WAL worker at once.
func (k key[S]) ofWorker() key[S] { k.worker = true; return k }

// live marks a key that "conf set" may change.
func (k key[S]) live() key[S] { k.settable = true; return k }

// inPathMode marks a key whose value is a path.
func (k key[S]) inPathMode() key[S] { k.path = true; return k }

// custom is a key with a grammar of its own.
func custom[S, T any](name string, field func(*S) *T, parse func(string) (T, error), show func(T) string) key[S] {
	return key[S]{
		name: name,
		set: func(s *S, value string) error {
			v, err := parse(value)
			if err == nil {
				*field(s) = v
			}
			return err
		},
		get: func(s *S) string { return show(*field(s)) },
	}
}

func text[S any](name string, field func(*S) *string) key[S] {
	same := func(v string) (string, error) { return v, nil }
	return custom(name, field, same, func(v string) string { return v })
}

func path[S any](name string, field func(*S) *string) key[S] {
	return text(name, field).inPathMode()
}

func secret[S any](name string, field func(*S) *vault.SecretWire) key[S] {
	parse := func(v string) (vault.SecretWire, error) { return vault.NewSecretWire(v), nil }
	k := custom(name, field, parse, func(v vault.SecretWire) string { return v.Reveal() })
	k.secret = true
	return k
}

func port[S any](name string, field func(*S) *int) key[S] {
	return custom(name, field, parsePort, strconv.Itoa).as(func(s *S) any { return int64(*field(s)) })
}

// integer is a number that is raised to least when it is below.
func integer[S any](name string, least int, field func(*S) *int) key[S] {
	parse := func(v string) (int, error) {
		n, err := parseInt32(v)
		return max(n, least), err
	}
	return custom(name, field, parse, strconv.Itoa).as(func(s *S) any { return int64(*field(s)) })
}

// rate is a number of bytes per second that is raised to least when it is below. As in
// C pgmoneta it has no unit; who gave one is told the number.
func rate[S any](name string, least int64, field func(*S) *int64) key[S] {
	parse := func(v string) (int64, error) {
		n, err := parseInt(v)
		if err == nil {
			return max(n, least), nil
		}
		if size, sizeErr := ParseSize(v); sizeErr == nil {
			return 0, fmt.Errorf("bytes per second are a whole number without a unit, here %d", size)
		}
		return 0, err
	}
	return custom(name, field, parse, func(v int64) string { return strconv.FormatInt(v, 10) }).as(func(s *S) any { return *field(s) })
}

// duration is a time whose empty value means fallback.
func duration[S any](name string, fallback time.Duration, field func(*S) *time.Duration) key[S] {
	parse := func(v string) (time.Duration, error) {
		if v == "" {
			return fallback, nil
		}
		return parseTime(v)
	}
	show := func(v time.Duration) string { return strconv.FormatInt(int64(v/time.Second), 10) + "s" }
	return custom(name, field, parse, show).as(func(s *S) any { return Coded{show(*field(s)), int64(*field(s) / time.Second)} })
}

func size[S any](name string, field func(*S) *int64) key[S] {
	parse := func(v string) (int64, error) {
		if v == "" {
			return 0, nil
		}
		return ParseSize(v)
	}
	return custom(name, field, parse, func(v int64) string { return strconv.FormatInt(v, 10) }).as(func(s *S) any {
		return Coded{strconv.FormatInt(*field(s), 10) + "B", *field(s)}
	})
}

func boolean[S any](name string, field func(*S) *bool) key[S] {
	return custom(name, field, func(v string) (bool, error) { return parseWord(v, boolWords) }, strconv.FormatBool).as(func(s *S) any { return *field(s) })
}

// enum is a word with a number.
func enum[S any, T interface {
	~int
	String() string
}](name string, field func(*S) *T, words []word[T]) key[S] {
	parse := func(v string) (T, error) { return parseWord(v, words) }
	return custom(name, field, parse, T.String).as(func(s *S) any { return Coded{(*field(s)).String(), int64(*field(s))} })
}

// tristate is a boolean whose empty value means that it is left to the main section.
func tristate[S any](name string, field func(*S) *Tristate) key[S] {
	parse := func(v string) (Tristate, error) {
		if v == "" || strings.EqualFold(v, "undefined") {
			return Unset, nil
		}
		return parseWord(v, tristateWords)
	}
	return custom(name, field, parse, Tristate.String)
}

func retention[S any](field func(*S) *Retention) key[S] {
	return custom("retention", field, parseRetention, Retention.String)
}

func list[S any](name, separator string, field func(*S) *[]string) key[S] {
	parse := func(v string) ([]string, error) { return splitList(v, separator), nil }
	return custom(name, field, parse, func(v []string) string { return strings.Join(v, separator) })
}

// positions is a list with a vertical bar whose empty entries count, because it is matched with another list by position.
func positions[S any](name string, field func(*S) *[]string) key[S] {
	parse := func(v string) ([]string, error) {
		if v == "" {
			return nil, nil
		}
		entries := strings.Split(v, "|")
		for i := range entries {
			entries[i] = strings.TrimSpace(entries[i])
		}
		return entries, nil
	}
	return custom(name, field, parse, func(v []string) string { return strings.Join(v, "|") })
}

// mainKeys returns the keys of the section [pgmoneta].
func mainKeys() []key[Main] {
	keys := []key[Main]{
		text("host", func(m *Main) *string { return &m.Host }).onRestart().live(),
		path("unix_socket_dir", func(m *Main) *string { return &m.UnixSocketDir }).onRestart(),
		path("base_dir", func(m *Main) *string { return &m.BaseDir }).onRestart(),

		port("metrics", func(m *Main) *int { return &m.Metrics }).live(),
		duration("metrics_cache_max_age", 0, func(m *Main) *time.Duration { return &m.MetricsCacheMaxAge }).live(),
		size("metrics_cache_max_size", func(m *Main) *int64 { return &m.MetricsCacheMaxSize }).onRestart(),
		text("metrics_ca_file", func(m *Main) *string { return &m.MetricsTLS.CA }).onRestart(),
		text("metrics_cert_file", func(m *Main) *string { return &m.MetricsTLS.Cert }).onRestart(),
		text("metrics_key_file", func(m *Main) *string { return &m.MetricsTLS.Key }).onRestart(),
		port("nagios", func(m *Main) *int { return &m.Nagios }).onRestart().live(),
		port("console", func(m *Main) *int { return &m.Console }).live(),
		port("management", func(m *Main) *int { return &m.Management }).live(),

		custom("compression", func(m *Main) *Compression { return &m.Compression }, func(v string) (Compression, error) { return parseWord(v, compressionWords) }, Compression.String).live().
			as(func(m *Main) any { return Coded{m.Compression.String(), int64(m.Compression.Code())} }),
		integer("compression_level", -131072, func(m *Main) *int { return &m.CompressionLevel }).live(),
		integer("workers", 0, func(m *Main) *int { return &m.Workers }).live(),
		rate("max_rate", 0, func(m *Main) *int64 { return &m.MaxRate }).live(),
		enum("backup_source", func(m *Main) *BackupSource { return &m.BackupSource }, backupSourceWords).live(),
		custom("cross_check", func(m *Main) *int { return &m.CrossCheck }, parsePercent, strconv.Itoa).as(func(m *Main) any { return int64(m.CrossCheck) }),
		boolean("allow_corrupt", func(m *Main) *bool { return &m.AllowCorrupt }),
		custom("job_nice", func(m *Main) *int { return &m.JobNice }, parseNice, strconv.Itoa).live().as(func(m *Main) any { return int64(m.JobNice) }),
		boolean("progress", func(m *Main) *bool { return &m.Progress }).live(),
		custom("storage_engine", func(m *Main) *StorageEngine { return &m.StorageEngines }, parseStorage, StorageEngine.String).onRestart().
			as(func(m *Main) any { return Coded{m.StorageEngines.String(), int64(m.StorageEngines)} }),
		custom("encryption", func(m *Main) *Encryption { return &m.Encryption }, parseEncryption, Encryption.String).onRestart().
			as(func(m *Main) any { return Coded{m.Encryption.String(), int64(m.Encryption)} }),
		tristate("create_slot", func(m *Main) *Tristate { return &m.CreateSlot }).
			as(func(m *Main) any { return Coded{m.CreateSlot.String(), int64(m.CreateSlot)} }),
		enum("wal_sync", func(m *Main) *WALSync { return &m.WALSync }, walSyncWords),
		custom("wal_flush_interval", func(m *Main) *time.Duration { return &m.WALFlushInterval }, parseMoment, time.Duration.String),
		duration("wal_max_age", 0, func(m *Main) *time.Duration { return &m.WALMaxAge }),
		path("wal_archive", func(m *Main) *string { return &m.WALArchive }).onRestart(),
		enum("on_gap", func(m *Main) *OnGap { return &m.OnGap }, onGapWords),

		retention(func(m *Main) *Retention { return &m.Retention }).live(),
		custom("retention_interval", func(m *Main) *time.Duration { return &m.RetentionInterval }, parseSeconds, showSeconds).onRestart(),
		integer("retention_count", 0, func(m *Main) *int { return &m.RetentionCount }).live(),
		integer("retention_min", 0, func(m *Main) *int { return &m.RetentionMin }).live(),
		duration("recovery_window", 0, func(m *Main) *time.Duration { return &m.RecoveryWindow }).live(),
		duration("delete_delay", 0, func(m *Main) *time.Duration { return &m.DeleteDelay }).live(),
		custom("wal_keep", func(m *Main) *WALKeep { return &m.WALKeep }, parseWALKeep, WALKeep.String).live(),
		custom("space_low", func(m *Main) *Space { return &m.SpaceLow }, parseSpace, Space.String).live(),
		custom("space_critical", func(m *Main) *Space { return &m.SpaceCritical }, parseSpace, Space.String).live(),
		path("hook_before", func(m *Main) *string { return &m.HookBefore }),
		path("hook_after", func(m *Main) *string { return &m.HookAfter }),
		boolean("backup_on_start", func(m *Main) *bool { return &m.BackupOnStart }),
		duration("verification", 0, func(m *Main) *time.Duration { return &m.Verification }).live(),
		path("workspace", func(m *Main) *string { return &m.Workspace }).onRestart(),
		path("rehearse_bindir", func(m *Main) *string { return &m.RehearseBinDir }).live(),
		boolean("rehearse_amcheck", func(m *Main) *bool { return &m.RehearseAmcheck }).live(),
		path("passfile", func(m *Main) *string { return &m.Passfile }),

		enum("tls", func(m *Main) *TLSMode { return &m.TLS }, tlsModeWords).onRestart(),
		duration("blocking_timeout", 30*time.Second, func(m *Main) *time.Duration { return &m.BlockingTimeout }).live(),
		path("pidfile", func(m *Main) *string { return &m.PIDFile }).onRestart(),
		enum("update_process_title", func(m *Main) *ProcessTitle { return &m.UpdateProcessTitle }, titleWords).onRestart(),
		custom("libev", func(m *Main) *string { return &m.Libev }, parseLibev, func(v string) string { return v }).onRestart(),
		boolean("keep_alive", func(m *Main) *bool { return &m.KeepAlive }),
		boolean("nodelay", func(m *Main) *bool { return &m.NoDelay }),
		boolean("non_blocking", func(m *Main) *bool { return &m.NonBlocking }),
		integer("backlog", minBacklog, func(m *Main) *int { return &m.Backlog }),
		enum("hugepage", func(m *Main) *HugePage { return &m.HugePage }, hugePageWords).onRestart(),
		enum("direct_io", func(m *Main) *DirectIO { return &m.DirectIO }, directIOWords).onRestart(),
		boolean("link", func(m *Main) *bool { return &m.Link }).onRestart(),
	}
	keys = append(keys, logKeys()...)
	for _, k := range tlsKeys(func(m *Main) *TLSFiles { return &m.TLSFiles }) {
		keys = append(keys, k.onRestart())
	}
	keys = append(keys, s3Keys(func(m *Main) *S3 { return &m.S3 })...)
	return append(keys, remoteKeys()...)
}

func logKeys() []key[Main] {
	return []key[Main]{
		enum("log_type", func(m *Main) *LogType { return &m.LogType }, logTypeWords).onRestart().live(),
		{
			name: "log_level", settable: true,
			set:   func(m *Main, v string) (err error) { m.LogLevel, err = logging.ParseLevel(v); return err },
			get:   func(m *Main) string { return levelWord(m.LogLevel) },
			typed: func(m *Main) any { return Coded{levelWord(m.LogLevel), levelNumber(m.LogLevel)} },
		},
		path("audit_path", func(m *Main) *string { return &m.AuditPath }).onRestart(),
		path("log_path", func(m *Main) *string { return &m.LogPath }).live(),
		size("log_rotation_size", func(m *Main) *int64 { return &m.LogRotationSize }),
		duration("log_rotation_age", 0, func(m *Main) *time.Duration { return &m.LogRotationAge }).live(),
		text("log_line_prefix", func(m *Main) *string { return &m.LogLinePrefix }),
		enum("log_mode", func(m *Main) *LogMode { return &m.LogMode }, logModeWords),
	}
}

// remoteKeys returns the keys of the storage engines that only the main section has.
func remoteKeys() []key[Main] {
	keys := []key[Main]{
		text("ssh_hostname", func(m *Main) *string { return &m.SSH.Hostname }),
		text("ssh_username", func(m *Main) *string { return &m.SSH.Username }),
		path("ssh_base_dir", func(m *Main) *string { return &m.SSH.BaseDir }),
		custom("ssh_ciphers", func(m *Main) *string { return &m.SSH.Ciphers }, parseCiphers, func(v string) string { return v }),
		path("ssh_public_key_file", func(m *Main) *string { return &m.SSH.PublicKeyFile }),
		path("ssh_private_key_file", func(m *Main) *string { return &m.SSH.PrivateKeyFile }),
		port("ssh_port", func(m *Main) *int { return &m.SSH.Port }),
		text("azure_storage_account", func(m *Main) *string { return &m.Azure.StorageAccount }),
		text("azure_container", func(m *Main) *string { return &m.Azure.Container }),
		secret("azure_shared_key", func(m *Main) *vault.SecretWire { return &m.Azure.SharedKey }),
		text("azure_base_dir", func(m *Main) *string { return &m.Azure.BaseDir }),
		text("azure_endpoint", func(m *Main) *string { return &m.Azure.Endpoint }),
		port("azure_port", func(m *Main) *int { return &m.Azure.Port }),
		boolean("azure_use_tls", func(m *Main) *bool { return &m.Azure.UseTLS }),
	}
	for i := range keys {
		keys[i] = keys[i].onRestart()
	}
	return keys
}

func s3Keys[S any](at func(*S) *S3) []key[S] {
	keys := []key[S]{
		boolean("s3_use_tls", func(s *S) *bool { return &at(s).UseTLS }),
		text("s3_storage_class", func(s *S) *string { return &at(s).StorageClass }),
		text("s3_endpoint", func(s *S) *string { return &at(s).Endpoint }),
		port("s3_port", func(s *S) *int { return &at(s).Port }),
		text("s3_region", func(s *S) *string { return &at(s).Region }),
		text("s3_access_key_id", func(s *S) *string { return &at(s).AccessKeyID }),
		secret("s3_secret_access_key", func(s *S) *vault.SecretWire { return &at(s).SecretAccessKey }),
		text("s3_bucket", func(s *S) *string { return &at(s).Bucket }),
		text("s3_base_dir", func(s *S) *string { return &at(s).BaseDir }),
	}
	for i := range keys {
		keys[i] = keys[i].onRestart()
	}
	return keys
}

func tlsKeys[S any](at func(*S) *TLSFiles) []key[S] {
	return []key[S]{
		path("tls_ca_file", func(s *S) *string { return &at(s).CA }),
		path("tls_cert_file", func(s *S) *string { return &at(s).Cert }),
		path("tls_key_file", func(s *S) *string { return &at(s).Key }),
	}
}

// serverKeys returns the keys of a server section.
func serverKeys() []key[Server] {
	keys := []key[Server]{
		text("host", func(s *Server) *string { return &s.Host }).ofWorker().live(),
		custom("port", func(s *Server) *[]int { return &s.Ports }, parsePorts, showPorts).ofWorker().live().as(typedPorts),
		text("user", func(s *Server) *string { return &s.User }).ofWorker().live(),
		text("wal_slot", func(s *Server) *string { return &s.WALSlot }).ofWorker().live(),
		custom("target", func(s *Server) *Target { return &s.Target }, parseTarget, Target.String).ofWorker(),
		tristate("create_slot", func(s *Server) *Tristate { return &s.CreateSlot }).live().as(func(s *Server) any { return int64(s.CreateSlot) }),
		text("follow", func(s *Server) *string { return &s.Follow }).onRestart().live(),
		path("passfile", func(s *Server) *string { return &s.Passfile }),
		path("workspace", func(s *Server) *string { return &s.Workspace }).onRestart(),
		path("rehearse_checks", func(s *Server) *string { return &s.RehearseChecks }).live(),
		path("rehearse_settings", func(s *Server) *string { return &s.RehearseSettings }).live(),
		retention(func(s *Server) *Retention { return &s.Retention }).live(),
		integer("retention_count", 0, func(s *Server) *int { return &s.RetentionCount }).live(),
		integer("retention_min", 0, func(s *Server) *int { return &s.RetentionMin }).live(),
		duration("recovery_window", 0, func(s *Server) *time.Duration { return &s.RecoveryWindow }).live(),
		duration("delete_delay", 0, func(s *Server) *time.Duration { return &s.DeleteDelay }).live(),
		custom("wal_keep", func(s *Server) *WALKeep { return &s.WALKeep }, parseWALKeep, WALKeep.String).live(),
		custom("schedule", func(s *Server) *Schedule { return &s.Schedule }, parseSchedule, Schedule.String),
		duration("schedule_jitter", 0, func(s *Server) *time.Duration { return &s.ScheduleJitter }),
		path("hook_before", func(s *Server) *string { return &s.HookBefore }),
		path("hook_after", func(s *Server) *string { return &s.HookAfter }),
		tristate("backup_on_start", func(s *Server) *Tristate { return &s.BackupOnStart }),
		path("wal_archive", func(s *Server) *string { return &s.WALArchive }).ofWorker(),
		text("wal_shipping", func(s *Server) *string { return &s.WALShipping }).ofWorker(),
		boolean("wal_shipping_plain", func(s *Server) *bool { return &s.WALShippingPlain }).ofWorker(),
		list("hot_standby", ",", func(s *Server) *[]string { return &s.HotStandby }),
		positions("hot_standby_overrides", func(s *Server) *[]string { return &s.HotStandbyOverrides }),
		positions("hot_standby_tablespaces", func(s *Server) *[]string { return &s.HotStandbyTablespaces }),
		custom("backup_source", func(s *Server) *BackupSource { return &s.BackupSource }, parseBackupSource, BackupSource.String).live(),
		integer("workers", -1, func(s *Server) *int { return &s.Workers }).live(),
		rate("max_rate", -1, func(s *Server) *int64 { return &s.MaxRate }).live(),
		tristate("progress", func(s *Server) *Tristate { return &s.Progress }).live(),
		list("extra", ",", func(s *Server) *[]string { return &s.Extra }),
	}
	for _, k := range tlsKeys(func(s *Server) *TLSFiles { return &s.TLSFiles }) {
		keys = append(keys, k.ofWorker())
	}
	keys = append(keys, boolean("tls_channel_binding", func(s *Server) *bool { return &s.TLSBound }).ofWorker())
	return append(keys, s3Keys(func(s *Server) *S3 { return &s.S3 })...)
}
