package config

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/logging"
)

// The functions of this file are the value grammars of the file. Their errors say what is accepted;
// the caller adds file, line, section, key and value.

// word is one accepted word of an enumeration. The first word of a value is the one shown in messages.
type word[T any] struct {
	word  string
	value T
}

// parseWord looks value up, in any case.
func parseWord[T any](value string, words []word[T]) (T, error) {
	for _, w := range words {
		if strings.EqualFold(value, w.word) {
			return w.value, nil
		}
	}
	var zero T
	return zero, fmt.Errorf("unknown word; accepted are %s", wordList(words))
}

func wordList[T any](words []word[T]) string {
	names := make([]string, len(words))
	for i, w := range words {
		names[i] = w.word
	}
	return strings.Join(names, ", ")
}

var (
	boolWords = []word[bool]{
		{"on", true}, {"off", false}, {"true", true}, {"false", false},
		{"yes", true}, {"no", false}, {"1", true}, {"0", false},
	}
	tlsModeWords = []word[TLSMode]{
		{"on", TLSOn}, {"off", TLSOff}, {"require", TLSRequire}, {"true", TLSOn}, {"false", TLSOff},
		{"yes", TLSOn}, {"no", TLSOff}, {"1", TLSOn}, {"0", TLSOff},
	}
	tristateWords = []word[Tristate]{
		{"yes", Yes}, {"no", No}, {"on", Yes}, {"off", No},
		{"true", Yes}, {"false", No}, {"1", Yes}, {"0", No},
	}
	compressionWords = []word[Compression]{
		{"none", Compression{}},
		{"gzip", Compression{Gzip, false}}, {"client-gzip", Compression{Gzip, false}}, {"server-gzip", Compression{Gzip, true}},
		{"zstd", Compression{Zstd, false}}, {"client-zstd", Compression{Zstd, false}}, {"server-zstd", Compression{Zstd, true}},
		{"lz4", Compression{LZ4, false}}, {"client-lz4", Compression{LZ4, false}}, {"server-lz4", Compression{LZ4, true}},
		{"bz2", Compression{Bzip2, false}}, {"client-bz2", Compression{Bzip2, false}},
		{"bzip2", Compression{Bzip2, false}}, {"client-bzip2", Compression{Bzip2, false}},
	}
	encryptionWords = []word[Encryption]{
		{"none", EncryptionNone},
		{"aes", AES256}, {"aes-256", AES256}, {"aes-256-gcm", AES256},
		{"aes-192", AES192}, {"aes-192-gcm", AES192},
		{"aes-128", AES128}, {"aes-128-gcm", AES128},
	}
	walSyncWords      = []word[WALSync]{{"auto", WALSyncAuto}, {"always", WALSyncAlways}}
	onGapWords        = []word[OnGap]{{"backup", OnGapBackup}, {"continue", OnGapContinue}, {"stop", OnGapStop}}
	backupSourceWords = []word[BackupSource]{
		{"auto", BackupSourceAuto}, {"stream", BackupSourceStream}, {"files", BackupSourceFiles}, {"sql", BackupSourceSQL},
	}
	walKeepWords  = []word[WALKeep]{{"needed", WALKeepNeeded}, {"all", WALKeepAll}}
	targetWords   = []word[Target]{{"any", TargetAny}, {"primary", TargetPrimary}, {"standby", TargetStandby}}
	logTypeWords  = []word[LogType]{{"console", LogConsole}, {"file", LogFile}, {"syslog", LogSyslog}}
	logModeWords  = []word[LogMode]{{"append", LogAppend}, {"a", LogAppend}, {"create", LogCreate}, {"c", LogCreate}}
	hugePageWords = []word[HugePage]{{"off", HugePageOff}, {"try", HugePageTry}, {"on", HugePageOn}}
	directIOWords = []word[DirectIO]{{"off", DirectIOOff}, {"auto", DirectIOAuto}, {"try", DirectIOAuto}, {"on", DirectIOOn}}
	titleWords    = []word[ProcessTitle]{
		{"never", TitleNever}, {"off", TitleNever}, {"strict", TitleStrict}, {"minimal", TitleMinimal},
		{"verbose", TitleVerbose}, {"full", TitleVerbose},
	}
	libevWords = []word[string]{
		{"auto", "auto"}, {"select", "select"}, {"poll", "poll"}, {"epoll", "epoll"},
		{"linuxaio", "linuxaio"}, {"iouring", "iouring"}, {"devpoll", "devpoll"}, {"port", "port"},
	}
)

// parseInt reads a whole decimal number of at most 64 bits.
func parseInt(value string) (int64, error) {
	n, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
	if err != nil {
		return 0, errors.New("not a whole number")
	}
	return n, nil
}

// parseInt32 reads a number that is kept as an int.
func parseInt32(value string) (int, error) {
	n, err := parseInt(value)
	if err != nil {
		return 0, err
	}
	if n < math.MinInt32 || n > math.MaxInt32 {
		return 0, fmt.Errorf("out of range %d to %d", math.MinInt32, math.MaxInt32)
	}
	return int(n), nil
}

// parseTarget reads a target; an empty one leaves it to the number of hosts.
func parseTarget(value string) (Target, error) {
	if value == "" {
		return TargetUnset, nil
	}
	return parseWord(value, targetWords)
}

// parseBackupSource reads a source; an empty one leaves it to the main section.
func parseBackupSource(value string) (BackupSource, error) {
	if value == "" {
		return BackupSourceUnset, nil
	}
	return parseWord(value, backupSourceWords)
}

// parseWALKeep reads wal_keep; an empty one leaves it to the main section.
func parseWALKeep(value string) (WALKeep, error) {
	if value == "" {
		return WALKeepUnset, nil
	}
	return parseWord(value, walKeepWords)
}

// parsePorts reads one port for all hosts or one for each.
func parsePorts(value string) ([]int, error) {
	var ports []int
	for _, entry := range splitList(value, ",") {
		p, err := parsePort(entry)
		if err != nil {
			return nil, err
		}
		ports = append(ports, p)
	}
	return ports, nil
}

func showPorts(ports []int) string {
	words := make([]string, len(ports))
	for i, p := range ports {
		words[i] = strconv.Itoa(p)
	}
	return strings.Join(words, ",")
}

// parseMoment reads a short time: a number of milliseconds, or a time of the usual grammar.
func parseMoment(value string) (time.Duration, error) {
	const form = "a time such as 200ms or 1s"
	if digits, ok := strings.CutSuffix(strings.ToLower(value), "ms"); ok {
		n, err := strconv.ParseUint(strings.TrimSpace(digits), 10, 31)
		if err != nil {
			return 0, errors.New("want " + form)
		}
		return time.Duration(n) * time.Millisecond, nil
	}
	return parseTime(value)
}

func parsePercent(value string) (int, error) {
	n, err := parseInt32(value)
	if err != nil {
		return 0, err
	}
	if n < 0 || n > 100 {
		return 0, errors.New("a percentage is a number from 0 to 100")
	}
	return n, nil
}

func parseNice(value string) (int, error) {
	n, err := parseInt32(value)
	if err != nil {
		return 0, err
	}
	if n < 0 || n > 19 {
		return 0, errors.New("a nice value of jobs is a number from 0 to 19")
	}
	return n, nil
}

// parsePort reads a TCP port; 0 means that there is none.
func parsePort(value string) (int, error) {
	n, err := parseInt(value)
	if err != nil {
		return 0, err
	}
	if n < 0 || n > math.MaxUint16 {
		return 0, errors.New("a port is a number from 0 to 65535")
	}
	return int(n), nil
}

const (
	timeForm = "a time is a number with at most one of s, m, h, d, w, such as 30s or 1d"
	sizeForm = "a size is a number with at most one of B, K, M, G, such as 64K or 2GB"
)

// parseTime reads a time. The unit may also stand before the number, as C pgmoneta accepts it anywhere.
func parseTime(value string) (time.Duration, error) {
	digits, unit, err := splitUnit(value)
	if err != nil {
		return 0, errors.New(timeForm)
	}
	seconds, ok := map[string]int64{"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}[unit]
	if !ok {
		return 0, errors.New(timeForm)
	}
	n, err := scale(digits, seconds, math.MaxInt64/int64(time.Second))
	if err != nil {
		return 0, err
	}
	return time.Duration(n) * time.Second, nil
}

// splitUnit separates the digits of value from the letters after or before them.
func splitUnit(value string) (digits, unit string, err error) {
	isDigit := func(r rune) bool { return r >= '0' && r <= '9' }
	if digits = strings.TrimRightFunc(value, func(r rune) bool { return !isDigit(r) }); digits == "" {
		return "", "", errors.New("no digits")
	}
	unit = value[len(digits):]
	if unit == "" {
		digits = strings.TrimLeftFunc(value, func(r rune) bool { return !isDigit(r) })
		unit = value[:len(value)-len(digits)]
	}
	if strings.TrimFunc(digits, isDigit) != "" {
		return "", "", errors.New("not only digits")
	}
	return digits, strings.ToLower(unit), nil
}

// scale multiplies without overflow.
func scale(digits string, factor, most int64) (int64, error) {
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n > most/factor {
		return 0, errors.New("too large")
	}
	return n * factor, nil
}

// ParseSize reads a number of bytes: digits, then k, m or g for powers of 1,024, or none.
func ParseSize(value string) (int64, error) {
	digits, unit, err := splitUnit(value)
	if err != nil {
		return 0, errors.New(sizeForm)
	}
	factor, ok := map[string]int64{
		"": 1, "b": 1, "k": 1 << 10, "kb": 1 << 10, "m": 1 << 20, "mb": 1 << 20, "g": 1 << 30, "gb": 1 << 30,
	}[unit]
	if !ok {
		return 0, errors.New(sizeForm)
	}
	return scale(digits, factor, math.MaxInt64)
}

// parseRetention reads "days,weeks,months,years". Fields at the end may be missing; a blank field, 0, "-" and "x" mean unset.
// Commas without anything between them count as one, as in C pgmoneta: "7,,1" is 7 days and 1 week.
func parseRetention(value string) (Retention, error) {
	const form = "retention is up to four numbers days,weeks,months,years, each at least 1, or - for unset, such as 7,4,-,1"
	fields := strings.FieldsFunc(value, func(r rune) bool { return r == ',' })
	if len(fields) > 4 {
		return Retention{}, errors.New(form)
	}
	var n [4]int
	for i, field := range fields {
		switch field = strings.TrimSpace(field); field {
		case "", "-", "x", "X":
			continue
		}
		v, err := parseInt32(field)
		if err != nil || v < 0 {
			return Retention{}, errors.New(form)
		}
		n[i] = v
	}
	return Retention{n[0], n[1], n[2], n[3]}, nil
}

// parseStorage reads a comma list of storage engines.
func parseStorage(value string) (StorageEngine, error) {
	var set StorageEngine
	for field := range strings.SplitSeq(value, ",") {
		if field = strings.TrimSpace(field); field == "" {
			continue
		}
		engine, err := parseWord(field, storageEngines)
		if err != nil {
			return 0, err
		}
		set |= engine
	}
	if set == 0 {
		return 0, fmt.Errorf("no storage engine; accepted are %s", wordList(storageEngines))
	}
	return set, nil
}

// parseEncryption reads the cipher of stored data. What is stored is always sealed with AES-GCM; other modes are refused with the
// reason.
func parseEncryption(value string) (Encryption, error) {
	e, err := parseWord(value, encryptionWords)
	for _, mode := range []string{"-cbc", "-ctr"} {
		if size, ok := strings.CutSuffix(strings.ToLower(value), mode); err != nil && ok {
			return e, fmt.Errorf("data is encrypted with AES-GCM only, which also finds changes; say %s", size)
		}
	}
	return e, err
}

// parseCiphers reads a comma list of SSH ciphers and returns it in the words of OpenSSH.
func parseCiphers(value string) (string, error) {
	names := map[string]string{
		"aes": "aes256-cbc", "aes-256": "aes256-cbc", "aes-256-cbc": "aes256-cbc", "aes-256-ctr": "aes256-ctr",
		"aes-192": "aes192-cbc", "aes-192-cbc": "aes192-cbc", "aes-192-ctr": "aes192-ctr",
		"aes-128": "aes128-cbc", "aes-128-cbc": "aes128-cbc", "aes-128-ctr": "aes128-ctr",
	}
	list := splitList(value, ",")
	for i, cipher := range list {
		if name, ok := names[strings.ToLower(cipher)]; ok {
			list[i] = name
		}
	}
	return strings.Join(list, ","), nil
}

// splitList returns the parts of a list without white space around them and without empty parts.
func splitList(value, separator string) []string {
	var list []string
	for part := range strings.SplitSeq(value, separator) {
		if part = strings.TrimSpace(part); part != "" {
			list = append(list, part)
		}
	}
	return list
}

// parseSeconds reads retention_interval, a plain number of seconds.
func parseSeconds(value string) (time.Duration, error) {
	n, err := parseInt32(value)
	if err != nil {
		return 0, fmt.Errorf("%w of seconds", err)
	}
	return time.Duration(n) * time.Second, nil
}

func showSeconds(d time.Duration) string { return strconv.FormatInt(int64(d/time.Second), 10) }

func parseLibev(value string) (string, error) {
	if value == "" {
		return "", nil
	}
	return parseWord(value, libevWords)
}

// levelWord returns the word of a log level as log_level accepts it.
func levelWord(level slog.Level) string {
	name := strings.ToLower(logging.LevelName(level))
	if name == "trace" {
		return "debug5"
	}
	return name
}
