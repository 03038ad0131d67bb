package restore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/pgmoneta/pgmoneta-go/internal/pg"
)

// A Supply is how recovery gets WAL after that of the backup itself, which is always
// written to pg_wal.
type Supply string

// Supplies.
const (
	AnySupply     Supply = ""        // command where it works, else copy
	CommandSupply Supply = "command" // restore_command fetches it when it is wanted
	CopySupply    Supply = "copy"    // all of it is written to pg_wal
)

// WALProgram is the name of the program that restore_command runs.
const WALProgram = "pgmoneta-wal"

// A Command is what delivers WAL without us: the program [WALProgram] and the
// configuration it reads. Both paths are absolute.
type Command struct {
	Program string
	Config  string
}

// FindCommand looks for the program beside the executable at the path beside, then in
// PATH. It is nil when there is none.
func FindCommand(beside, config string) *Command {
	program := filepath.Join(filepath.Dir(beside), WALProgram)
	if info, err := os.Stat(program); beside == "" || err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
		if program, err = exec.LookPath(WALProgram); err != nil {
			return nil
		}
	}
	program, err := filepath.Abs(program)
	if err != nil || !filepath.IsAbs(config) {
		return nil
	}
	return &Command{Program: program, Config: config}
}

// line is the command as restore_command of a server: PostgreSQL replaces %f and %p,
// then a shell reads it.
func (c *Command) line(server string) string {
	words := []string{c.Program, "get", "--partial", "-c", c.Config, server}
	for i, w := range words {
		words[i] = shellWord(strings.ReplaceAll(w, "%", "%%"))
	}
	return strings.Join(words, " ") + ` "%f" "%p"`
}

// shellWord quotes a word unless every shell takes it as it is.
func shellWord(w string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("%+,-./:=@_", r)
	}
	if w != "" && !strings.ContainsFunc(w, func(r rune) bool { return !plain(r) }) {
		return w
	}
	return "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
}

// prove runs the command as the owner of the restored server would, for a file that it
// must find: program, configuration, repository and master key are all needed for that.
func (c *Command) prove(ctx context.Context, server, file string, as *Owner) error {
	cmd := exec.CommandContext(ctx, c.Program, "check", "-c", c.Config, server, file)
	cmd.Dir = "/"
	uid := os.Geteuid()
	if as != nil && uid == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(as.UID), Gid: uint32(as.GID)}}
		uid = as.UID
	}
	// The home directory holds the master key. That of a server comes from the user's
	// entry, whatever ours is.
	home := os.Getenv("HOME")
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		home = u.HomeDir
	}
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home}
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	if text := strings.TrimSpace(string(out)); text != "" {
		err = errors.New(text)
	}
	return fmt.Errorf("%s check -c %s %s %s: %w", c.Program, c.Config, server, file, err)
}

// supply decides how recovery gets WAL, and which of it is written to pg_wal.
func (m *planner) supply(ctx context.Context) error {
	p := m.plan
	p.Segments = p.Needed
	defer func() { p.WALBytes = int64(len(p.Segments)) * int64(p.Backup.SegmentSize) }()
	if m.WAL != AnySupply && m.WAL != CommandSupply && m.WAL != CopySupply {
		return &OptionError{"WAL supply " + string(m.WAL), "want command or copy"}
	}
	p.Supply, p.SupplyWhy = CopySupply, "asked for"
	if m.WAL == CopySupply {
		return nil
	}
	why, cannot := m.copies(ctx)
	if why == "" {
		p.Supply, p.SupplyWhy = CommandSupply, ""
		p.Segments = ofBackup(p.Needed, p.Backup.End)
		return nil
	}
	p.SupplyWhy = why
	if cannot && m.WAL == CommandSupply {
		return &OptionError{"WAL by restore_command", why + "; let WAL be copied instead"}
	}
	return nil
}

// copies says why WAL is copied, "" when restore_command can deliver it. cannot tells
// whether it has to be.
func (m *planner) copies(ctx context.Context) (why string, cannot bool) {
	p := m.plan
	switch {
	case m.signal() == "":
		return "the WAL of the backup is all that is needed", false
	case slices.ContainsFunc(m.Target.Settings, func(s Setting) bool { return s.Name == "restore_command" }):
		return "the position sets restore_command", true
	case m.Target.Kind == TargetImmediate && !m.Target.Replica && m.WAL != CommandSupply:
		return "little more than the WAL of the backup is needed", false
	case len(p.Needed) == 0:
		return "there is no WAL", true
	case m.behind != nil:
		// PostgreSQL reads ahead of its target, and the command stops it there.
		return fmt.Sprintf("a hole in WAL begins at %s, shortly after the target", m.behind.from), true
	case m.Command == nil:
		return WALProgram + " was not found, neither beside this program nor in PATH", true
	}
	for _, s := range p.Needed {
		// PostgreSQL asks the archive first, and would get what another branch wrote.
		if left, _ := p.follows.End(s.Timeline); left < s.Start+pg.LSN(m.found.size) {
			return fmt.Sprintf("of segment %s only what lies before %s may be replayed", s.Name, left), true
		}
	}
	if err := m.Command.prove(ctx, m.repo.Server(), p.Needed[0].Name, m.Owner); err != nil {
		return "restore_command does not work here: " + err.Error(), true
	}
	return "", false
}

// ofBackup returns the segments that hold WAL before end.
func ofBackup(all []Segment, end pg.LSN) []Segment {
	for i, s := range all {
		if s.Start >= end {
			return all[:i:i]
		}
	}
	return all
}
