package restore

import (
	"context"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// A Mapping sends a tablespace to a directory.
type Mapping struct {
	Which     string // its name, its OID, or the path it had on the server
	Directory string // absolute
}

// ParseMapping reads "name, OID or path=directory". The directory begins behind the
// first equals sign before a slash, so that names may hold others.
func ParseMapping(text string) (Mapping, error) {
	i := strings.LastIndex(text, "=/")
	if i <= 0 {
		return Mapping{}, &OptionError{"tablespace " + text, "want name, OID or path=directory, the directory absolute"}
	}
	return Mapping{Which: text[:i], Directory: filepath.Clean(text[i+1:])}, nil
}

// A Tablespace is where a tablespace goes.
type Tablespace struct {
	repo.Tablespace
	Directory string // absolute
	link      string // what the link in pg_tblspc says
}

// An Owner is whom the restored files are given to.
type Owner struct{ UID, GID int }

// ParseOwner reads "user[:group]", each a name or a number. Only root may give files to others.
func ParseOwner(text string) (*Owner, error) {
	name, group, grouped := strings.Cut(text, ":")
	u, err := user.Lookup(name)
	if err != nil {
		if u, err = user.LookupId(name); err != nil {
			return nil, &OptionError{"owner " + text, "there is no such user"}
		}
	}
	gid := u.Gid
	if grouped {
		g, err := user.LookupGroup(group)
		if err != nil {
			if g, err = user.LookupGroupId(group); err != nil {
				return nil, &OptionError{"owner " + text, "there is no such group"}
			}
		}
		gid = g.Gid
	}
	o := &Owner{}
	if o.UID, err = strconv.Atoi(u.Uid); err != nil {
		return nil, err
	}
	if o.GID, err = strconv.Atoi(gid); err != nil {
		return nil, err
	}
	if me := os.Geteuid(); me != 0 && (o.UID != me || o.GID != os.Getegid()) {
		return nil, &OptionError{"owner " + text, "only root may give files to another user: restore without it, or as root with pgmoneta-cli restore --offline"}
	}
	return o, nil
}

// directories names the directories and looks at what is there.
func (m *planner) directories(context.Context) error {
	if !filepath.IsAbs(m.Directory) {
		return &OptionError{fmt.Sprintf("directory %q", m.Directory), "an absolute path is needed"}
	}
	m.plan.Directory = filepath.Clean(m.Directory)
	if !m.Exact {
		name := m.repo.Server() + "-" + string(m.plan.Backup.Label)
		if name != filepath.Base(name) {
			return fmt.Errorf("server %q: its name cannot be part of a directory's name", m.repo.Server())
		}
		m.plan.Directory = filepath.Join(m.plan.Directory, name)
	}
	m.plan.WALDirectory = m.WALDirectory
	if m.WALDirectory != "" && !filepath.IsAbs(m.WALDirectory) {
		return &OptionError{"directory of WAL " + m.WALDirectory, "an absolute path is needed"}
	}
	if m.WALDirectory == "" {
		m.plan.WALDirectory = m.leads("pg_wal")
	}
	if err := m.tablespaces(); err != nil {
		return err
	}
	if err := m.apart(); err != nil {
		return err
	}
	return inspect(m.plan, m.Delta)
}

// leads returns where a link of the data directory that a delta restore finds leads,
// "" when there is none.
func (m *planner) leads(name string) string {
	if !m.Delta {
		return ""
	}
	to, err := os.Readlink(filepath.Join(m.plan.Directory, name))
	if err != nil || !filepath.IsAbs(to) {
		return ""
	}
	return filepath.Clean(to)
}

// tablespaces decides where each tablespace goes.
func (m *planner) tablespaces() error {
	s := m.plan.Backup
	used := make([]bool, len(m.Tablespaces))
	seen := map[uint32]bool{}
	for _, ts := range s.Tablespaces {
		if ts.OID == 0 || seen[ts.OID] {
			return fmt.Errorf("backup %s lists tablespace %d, %q twice or without a number", s.Label, ts.OID, ts.Name)
		}
		seen[ts.OID] = true
		to, err := m.place(ts, used)
		if err != nil {
			return err
		}
		m.plan.Tablespaces = append(m.plan.Tablespaces, to)
	}
	for i, u := range used {
		if !u {
			return &OptionError{"tablespace " + m.Tablespaces[i].Which, "the backup has none of this name, OID or path; it has " + listed(s.Tablespaces)}
		}
	}
	return nil
}

// place decides where one tablespace goes and marks the mappings that say so.
func (m *planner) place(ts repo.Tablespace, used []bool) (Tablespace, error) {
	oid := strconv.FormatUint(uint64(ts.OID), 10)
	var to string
	for i, p := range m.Tablespaces {
		if p.Which != ts.Name && p.Which != oid && filepath.Clean(p.Which) != filepath.Clean(ts.Location) {
			continue
		}
		if to != "" && to != p.Directory {
			return Tablespace{}, &OptionError{"tablespace " + ts.Name, fmt.Sprintf("it is sent to %s and to %s", to, p.Directory)}
		}
		to, used[i] = p.Directory, true
	}
	switch {
	case to != "":
	case m.InPlace:
		if to = ts.Location; !filepath.IsAbs(to) {
			return Tablespace{}, &OptionError{"tablespace " + ts.Name, fmt.Sprintf("its place on the server was %q, which is no absolute path: send it elsewhere", to)}
		}
	default:
		to = m.leads("pg_tblspc/" + oid)
	}
	if to != "" {
		to = filepath.Clean(to)
		return Tablespace{ts, to, to}, nil
	}
	beside := filepath.Base(m.plan.Directory) + "-tblspc_" + directoryName(ts)
	return Tablespace{ts, filepath.Join(filepath.Dir(m.plan.Directory), beside), "../../" + beside}, nil
}

func listed(all []repo.Tablespace) string {
	if len(all) == 0 {
		return "no tablespaces"
	}
	var words []string
	for _, ts := range all {
		words = append(words, fmt.Sprintf("%q (%d, %s)", ts.Name, ts.OID, ts.Location))
	}
	return strings.Join(words, ", ")
}

// directoryName is the tablespace's name, or its OID when that cannot be the end
// of a file name.
func directoryName(ts repo.Tablespace) string {
	control := func(r rune) bool { return r < ' ' || r == 0x7F || r == '/' }
	if ts.Name == "" || len(ts.Name) > 128 || strings.ContainsFunc(ts.Name, control) {
		return strconv.FormatUint(uint64(ts.OID), 10)
	}
	return ts.Name
}

// apart refuses directories that lie in one another: one would be written through
// two names, or removed with the other.
func (m *planner) apart() error {
	dirs := m.plan.roots()
	for i, a := range dirs {
		for _, b := range dirs[i+1:] {
			if within(a, b) || within(b, a) {
				return &OptionError{"directories " + a + " and " + b, "one lies in the other: choose others"}
			}
		}
	}
	return nil
}

// within reports whether a is b or lies below it.
func within(a, b string) bool {
	below, err := filepath.Rel(b, a)
	return err == nil && filepath.IsLocal(below)
}

// roots returns the directories that are written to, the target directory last.
func (p *Plan) roots() []string {
	var dirs []string
	for _, ts := range p.Tablespaces {
		dirs = append(dirs, ts.Directory)
	}
	if p.WALDirectory != "" {
		dirs = append(dirs, p.WALDirectory)
	}
	return append(dirs, p.Directory)
}
