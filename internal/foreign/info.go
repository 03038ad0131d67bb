package foreign

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

const (
	// infoLimit bounds a backup.info, which has some kilobytes.
	infoLimit = 1 << 20

	// maxTablespaces is how many C pgmoneta describes.
	maxTablespaces = 64
)

// An info is what a backup.info says.
type info struct {
	status      int // 1 is valid
	label       string
	wal         string // first segment that recovery needs
	size        int64  // on disk, when the backup was taken
	restore     int64
	biggest     int64
	elapsed     time.Duration
	base        time.Duration // of it, receiving
	major       int
	minor       int
	keep        bool
	tablespaces []repo.Tablespace
	compression int
	encryption  int
	start       pg.LSN
	end         pg.LSN
	checkpoint  pg.LSN
	startTLI    pg.Timeline
	endTLI      pg.Timeline
	incremental bool
	parent      string
	comments    string
}

// parseInfo reads a backup.info. Lines that mean nothing, keys it does not know, carriage
// returns and values with an equals sign are put up with. A last line without its line feed was cut
// off and does not count. What cannot be done without is an [*InfoError] if it is missing or makes
// no sense; i then has the rest.
//
// C pgmoneta truncates the file and writes it anew at each change, so that after a crash it may
// be empty or end anywhere.
func parseInfo(file string, content []byte) (i info, err error) {
	p := infoParser{file: file, lines: map[string]infoLine{}}
	p.split(content)
	i.status = int(p.number("STATUS", 1, true))
	i.label = p.text("LABEL", true)
	i.wal = p.text("WAL", false)
	i.size = p.number("BACKUP", math.MaxInt64, false)
	i.restore = p.number("RESTORE", math.MaxInt64, false)
	i.biggest = p.number("BIGGEST_FILE", math.MaxInt64, false)
	i.elapsed = p.seconds("ELAPSED")
	i.base = p.seconds("BASEBACKUP_ELAPSED")
	i.major = int(p.number("MAJOR_VERSION", 99, true))
	i.minor = int(p.number("MINOR_VERSION", 9999, false))
	i.keep = p.number("KEEP", math.MaxInt64, false) == 1
	i.compression = int(p.number("COMPRESSION", 255, true))
	i.encryption = int(p.number("ENCRYPTION", 3, true))
	i.start = p.lsn("START_WALPOS", true)
	i.end = p.lsn("END_WALPOS", true)
	i.checkpoint = p.lsn("CHKPT_WALPOS", false)
	i.startTLI = pg.Timeline(p.number("START_TIMELINE", math.MaxUint32, true))
	i.endTLI = pg.Timeline(p.number("END_TIMELINE", math.MaxUint32, true))
	i.incremental = p.number("TYPE", 1, true) == 1
	i.parent = p.text("PARENT", i.incremental)
	i.comments = p.text("COMMENTS", false)
	i.tablespaces = p.tablespaces()
	if p.err == nil && (i.end <= i.start || i.startTLI == 0 || i.endTLI == 0) {
		p.fail("END_WALPOS", fmt.Sprintf("a backup from %s to %s on timelines %d to %d is impossible", i.start, i.end, i.startTLI, i.endTLI))
	}
	return i, p.err
}

type infoLine struct {
	value  string
	number int
}

type infoParser struct {
	file  string
	lines map[string]infoLine
	err   error // the first one
}

func (p *infoParser) split(content []byte) {
	for n := 1; len(content) > 0; n++ {
		line, rest, whole := bytes.Cut(content, []byte("\n"))
		content = rest
		key, value, pair := strings.Cut(strings.TrimRight(string(line), "\r\x00"), "=")
		if whole && pair {
			p.lines[strings.TrimSpace(key)] = infoLine{value, n}
		}
	}
}

func (p *infoParser) fail(key, why string) {
	if p.err == nil {
		p.err = &InfoError{File: p.file, Line: p.lines[key].number, Key: key, Why: why}
	}
}

func (p *infoParser) text(key string, needed bool) string {
	l, ok := p.lines[key]
	if needed && (!ok || l.value == "") {
		p.fail(key, "it is missing: the file was cut off, or never finished")
	}
	return l.value
}

func (p *infoParser) number(key string, most int64, needed bool) int64 {
	text := strings.TrimSpace(p.text(key, needed))
	if text == "" {
		return 0
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > most {
		if needed {
			p.fail(key, fmt.Sprintf("%q is no number from 0 to %d", text, most))
		}
		return 0
	}
	return n
}

// seconds reads a duration, which is only shown: one that makes no sense is zero.
func (p *infoParser) seconds(key string) time.Duration {
	s, err := strconv.ParseFloat(strings.TrimSpace(p.text(key, false)), 64)
	const longest = 10 * 365 * 24 * 3600
	if err != nil || !(s >= 0 && s < longest) {
		return 0
	}
	return time.Duration(s * float64(time.Second))
}

func (p *infoParser) lsn(key string, needed bool) pg.LSN {
	text := strings.TrimSpace(p.text(key, needed))
	lsn, err := pg.ParseLSN(text)
	if needed && (err != nil || lsn == 0) {
		p.fail(key, fmt.Sprintf("%q is no position", text))
	}
	return lsn
}

func (p *infoParser) tablespaces() []repo.Tablespace {
	var list []repo.Tablespace
	for n := 1; n <= int(p.number("TABLESPACES", maxTablespaces, false)); n++ {
		at := strconv.Itoa(n)
		oid := p.number("TABLESPACE_OID"+at, math.MaxUint32, false)
		if oid == 0 {
			continue // the links of the data directory tell
		}
		list = append(list, repo.Tablespace{
			OID: uint32(oid), Name: strings.TrimPrefix(p.text("TABLESPACE"+at, false), tablespacePrefix), Location: p.text("TABLESPACE_PATH"+at, false),
		})
	}
	return list
}

const tablespacePrefix = "tblspc_"

// codec returns the codec of a COMPRESSION code: the low four bits, or one of the
// old codes 5 to 7 for what the server compressed.
func (i *info) codec() container.Codec {
	switch i.compression {
	case 5:
		return container.Gzip
	case 6:
		return container.Zstd
	case 7:
		return container.LZ4
	}
	if c := container.Codec(i.compression & 0x0F); c <= container.Bzip2 {
		return c
	}
	return container.None
}

// takenFrom completes i with what the file backup_label says and with the WAL that PostgreSQL's
// manifest says the backup needs. It is for a backup.info that was cut off.
func (i *info) takenFrom(label []byte, needs []walRange) error {
	b, err := pg.ParseBackupLabel(label)
	if err != nil {
		return err
	}
	if len(needs) == 0 {
		return errors.New("backup_manifest does not say what WAL the backup needs")
	}
	first, last := needs[0], needs[0]
	for _, r := range needs[1:] {
		if r.Timeline < first.Timeline {
			first = r
		}
		if r.Timeline > last.Timeline {
			last = r
		}
	}
	i.start, i.checkpoint, i.end = b.Start, b.Checkpoint, last.End
	i.startTLI, i.endTLI = first.Timeline, last.Timeline
	_, _, i.incremental = parentOf(label)
	return nil
}

// readSmall reads all of in, at most limit bytes.
func readSmall(in io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(in, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%w: more than %d bytes", ErrDamaged, limit)
	}
	return b, err
}
