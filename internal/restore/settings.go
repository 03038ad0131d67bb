package restore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Names of files that tell PostgreSQL to recover.
const (
	recoverySignal = "recovery.signal"
	standbySignal  = "standby.signal"
	autoConf       = "postgresql.auto.conf"
)

// signal returns the name of the signal file, or "". Without one PostgreSQL
// replays what lies in pg_wal on the timeline of the backup and starts.
func (m *planner) signal() string {
	switch s := m.plan.Backup; {
	case m.Target.Replica:
		return standbySignal
	// Only archive recovery follows a change of timeline inside the backup.
	case m.Target.Kind != TargetNone, s.StartTLI != m.plan.Timeline:
		return recoverySignal
	}
	return ""
}

// settings decides what postgresql.auto.conf has to say.
//
// See PostgreSQL documentation, "Recovery Target" and "Archive Recovery".
func (m *planner) settings(context.Context) error {
	t := m.Target
	m.plan.Signal = m.signal()
	var list []Setting
	add := func(name, value string) {
		if value != "" && !slices.ContainsFunc(t.Settings, func(s Setting) bool { return s.Name == name }) {
			list = append(list, Setting{name, value})
		}
	}
	if t.Replica {
		add("primary_conninfo", m.PrimaryConninfo)
		add("primary_slot_name", m.PrimarySlot)
	}
	if m.plan.Signal != "" {
		add("restore_command", m.restoreCommand())
		add("recovery_target_timeline", m.targetTimeline())
	}
	switch t.Kind {
	case TargetImmediate:
		add("recovery_target", "immediate")
	case TargetName:
		add("recovery_target_name", t.Name)
	case TargetXID:
		add("recovery_target_xid", strconv.FormatUint(t.XID, 10))
	case TargetLSN:
		add("recovery_target_lsn", t.LSN.String())
	case TargetTime:
		add("recovery_target_time", t.timeText())
	}
	if t.Exclusive {
		add("recovery_target_inclusive", "off")
	}
	if t.Kind != TargetLatest {
		add("recovery_target_action", string(t.Action))
	}
	m.plan.Settings = append(list, t.Settings...)
	return m.checkSettings()
}

// restoreCommand is what delivers WAL that is not in pg_wal. Archive recovery does
// not begin without any.
func (m *planner) restoreCommand() string {
	if m.plan.Supply == CommandSupply {
		return m.Command.line(m.repo.Server())
	}
	return "false"
}

// targetTimeline is the timeline of the plan. A standby that was given none has
// to go on following its primary when that changes.
func (m *planner) targetTimeline() string {
	if m.Target.Replica && m.followsLatest() {
		return "latest"
	}
	return strconv.FormatUint(uint64(m.plan.Timeline), 10)
}

// Conninfo is how a restored replica of a server reaches it. The password belongs in the
// replica's own password file.
func Conninfo(server, host string, port int, user string) string {
	quote := func(s string) string {
		return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
	}
	return fmt.Sprintf("host=%s port=%d user=%s application_name=%s", quote(host), port, quote(user), quote(server+"_replica"))
}

func (m *planner) checkSettings() error {
	for _, s := range m.plan.Settings {
		if strings.ContainsFunc(s.Value, func(r rune) bool { return r < ' ' }) {
			return fmt.Errorf("setting %s: control characters are not allowed in %q", s.Name, s.Value)
		}
		if s.Name == "primary_conninfo" && holdsPassword(s.Value) {
			return errors.New("setting primary_conninfo: a password does not belong there: put it into the password file of the user PostgreSQL runs as")
		}
	}
	return nil
}

var passwordWord = regexp.MustCompile(`(?i)(^|[\s?&])password\s*=`)

// holdsPassword recognises both forms of a connection string.
func holdsPassword(conninfo string) bool {
	if u, err := url.Parse(conninfo); err == nil && u.User != nil {
		_, ok := u.User.Password()
		return ok || passwordWord.MatchString(conninfo)
	}
	return passwordWord.MatchString(conninfo)
}

// line returns the setting as a line of a configuration file.
func (s Setting) line() string {
	return s.Name + " = '" + strings.NewReplacer(`'`, `''`, `\`, `\\`).Replace(s.Value) + "'\n"
}

// stale reports whether a line sets what an earlier recovery was told, or will
// be told now.
func stale(line string, settings []Setting) bool {
	name := settingOf(line)
	switch name {
	case "":
		return false
	case "restore_command", "recovery_end_command", "archive_cleanup_command", "recovery_min_apply_delay",
		"primary_conninfo", "primary_slot_name", "standby_mode", "promote_trigger_file":
		return true
	}
	return strings.HasPrefix(name, "recovery_target") ||
		slices.ContainsFunc(settings, func(s Setting) bool { return s.Name == name })
}

// settingOf returns the lower-case name that a line sets, or "".
func settingOf(line string) string {
	line = strings.TrimSpace(line)
	end := strings.IndexFunc(line, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_' && r != '.'
	})
	if end < 0 {
		end = len(line)
	}
	return strings.ToLower(line[:end])
}

// rewriteConf comments out what is stale in the content of postgresql.auto.conf and
// appends the plan's settings.
func rewriteConf(content []byte, p *Plan) []byte {
	var out bytes.Buffer
	for line := range strings.Lines(string(content)) {
		if stale(line, p.Settings) {
			out.WriteString("# ")
		}
		out.WriteString(line)
	}
	if len(p.Settings) == 0 {
		return out.Bytes()
	}
	if b := out.Bytes(); len(b) > 0 && b[len(b)-1] != '\n' {
		out.WriteByte('\n')
	}
	fmt.Fprintf(&out, "\n# Begin of recovery settings, written when backup %s was restored.\n", p.Backup.Label)
	if p.Signal != "" && p.Supply != CommandSupply {
		out.WriteString("# All archived WAL that is needed lies in pg_wal, so restore_command has nothing to fetch.\n")
	}
	for _, s := range p.Settings {
		out.WriteString(s.line())
	}
	out.WriteString("# End of recovery settings.\n")
	return out.Bytes()
}

// conflicts returns the recovery settings in the content of postgresql.conf.
// PostgreSQL refuses to start when they name another target than the plan.
func conflicts(content []byte) []string {
	var names []string
	for line := range strings.Lines(string(content)) {
		if name := settingOf(line); strings.HasPrefix(name, "recovery_target") {
			names = append(names, name)
		}
	}
	return names
}
