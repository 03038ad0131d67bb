package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"
	"unicode"
)

// AllServers is the word that stands for every server in requests.
const AllServers = "all"

// maxServerName is the longest name of a server in bytes.
const maxServerName = 127

// Validate checks the values of a parsed configuration together and against the file system. The error is [Errors] and holds every problem.
//
// It accepts a base_dir that does not exist, because the daemon creates it.
func (c *Config) Validate() error { return c.problems().orNil() }

// ValidateUsers checks that every server without a password file has its user in the users file. known looks a user up there.
func (c *Config) ValidateUsers(known func(user string) bool) error {
	v := validator{config: c}
	for i := range c.Servers {
		s := &c.Servers[i]
		if s.User != "" && c.Passfile(s) == "" && !known(s.User) {
			v.report(s.Name, "user", s.User, "this user is not in the users file; add it with pgmoneta-admin user add, or set passfile")
		}
	}
	return v.errs.orNil()
}

// validator collects problems.
type validator struct {
	config *Config
	errs   Errors
}

func (v *validator) report(section, key, value, message string) {
	line := v.config.lines[place{section, key}]
	if line == 0 {
		line = v.config.lines[place{section, ""}]
	}
	v.errs = append(v.errs, Problem{v.config.Path, line, section, key, value, message})
}

// required reports a key without a value.
func (v *validator) required(section, key, value string) bool {
	if value == "" {
		v.report(section, key, "", "this key is required")
	}
	return value != ""
}

// problemsAt returns what is wrong with one value beside the others. It does not look at the file system, which may be that of
// another machine.
func (c *Config) problemsAt(section, key string) Errors {
	v := &validator{config: c}
	v.timing()
	v.ports()
	for i := range c.Servers {
		v.server(&c.Servers[i])
	}
	return slices.DeleteFunc(v.errs, func(p Problem) bool { return p.Section != section || p.Key != key })
}

func (c *Config) problems() Errors {
	v := &validator{config: c}
	v.directories()
	v.timing()
	v.ports()
	v.remote()
	if len(c.Servers) == 0 {
		v.report("", "", "", "no servers defined; add a section such as [primary] with host, port, user and wal_slot")
	}
	for i := range c.Servers {
		v.server(&c.Servers[i])
	}
	return v.errs
}

func (v *validator) directories() {
	m := &v.config.Main
	v.required(MainSection, "host", m.Host)
	if v.required(MainSection, "unix_socket_dir", m.UnixSocketDir) {
		v.directory(MainSection, "unix_socket_dir", m.UnixSocketDir)
	}
	if v.required(MainSection, "base_dir", m.BaseDir) && !isMissing(m.BaseDir) {
		v.directory(MainSection, "base_dir", m.BaseDir)
	}
}

// directory checks that a path is an existing directory.
func (v *validator) directory(section, key, path string) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		v.report(section, key, path, "cannot use this directory: "+reason(err))
	case !info.IsDir():
		v.report(section, key, path, "this is not a directory")
	}
}

func isMissing(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// reason returns an error of the file system without operation and path, which the message has already.
func reason(err error) string {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err.Error()
	}
	return err.Error()
}

func (v *validator) timing() {
	m := &v.config.Main
	v.retention(MainSection, m.Retention, m.Retention)
	if m.RetentionInterval < time.Second {
		v.report(MainSection, "retention_interval", showSeconds(m.RetentionInterval), "the retention interval should be at least 1 second")
	}
}

// retention checks the effective retention of a section; written is what the file says there.
func (v *validator) retention(section string, written, r Retention) {
	report := func(format string, args ...any) {
		v.report(section, "retention", written.String(), fmt.Sprintf(format, args...))
	}
	if r.Days < 1 {
		report("retention days should be at least 1")
	}
	if r.Years > 0 && r.Months > 12 {
		report("%d is an invalid month configuration: with years it is at most 12", r.Months)
	}
	if r.Months > 0 && r.Weeks > 4 {
		report("%d is an invalid week configuration: with months it is at most 4", r.Weeks)
	}
}

// ports checks that no two listeners share a port.
func (v *validator) ports() {
	m := &v.config.Main
	seen := map[int]string{}
	for _, l := range []struct {
		key  string
		port int
	}{{"metrics", m.Metrics}, {"nagios", m.Nagios}, {"console", m.Console}, {"management", m.Management}} {
		if l.port == 0 {
			continue
		}
		if other, ok := seen[l.port]; ok {
			v.report(MainSection, l.key, fmt.Sprint(l.port), fmt.Sprintf("%s uses the same port", other))
		}
		seen[l.port] = l.key
	}
}

// remote checks what the storage engines need.
func (v *validator) remote() {
	m := &v.config.Main
	if !m.StorageEngines.Has(StorageSSH) {
		return
	}
	v.required(MainSection, "ssh_base_dir", m.SSH.BaseDir)
	v.file("ssh_public_key_file", m.SSH.PublicKeyFile)
	v.file("ssh_private_key_file", m.SSH.PrivateKeyFile)
}

// file checks that a file exists.
func (v *validator) file(key, path string) {
	if !v.required(MainSection, key, path) {
		return
	}
	if _, err := os.Stat(path); err != nil {
		v.report(MainSection, key, path, "cannot use this file: "+reason(err))
	}
}

func (v *validator) server(s *Server) {
	if message := serverNameProblem(s.Name); message != "" {
		v.report(s.Name, "", "", message)
	}
	v.required(s.Name, "host", s.Host)
	v.addresses(s)
	v.required(s.Name, "user", s.User)
	if !isSlotName(s.WALSlot) {
		v.report(s.Name, "wal_slot", s.WALSlot, "PostgreSQL accepts slot names of at most 63 lower case letters, digits and underscores")
	}
	if s.Retention != (Retention{}) {
		v.retention(s.Name, s.Retention, v.config.Retention(s))
	}
	v.follow(s)
}

// addresses checks that each host of a server has a port.
func (v *validator) addresses(s *Server) {
	hosts := len(s.Addresses())
	switch {
	case len(s.Ports) == 0 || slices.Contains(s.Ports, 0):
		v.report(s.Name, "port", "", "this key is required; PostgreSQL uses 5432 by default")
	case len(s.Ports) > 1 && len(s.Ports) != hosts:
		v.report(s.Name, "port", showPorts(s.Ports), fmt.Sprintf("want one port for all of the %d hosts, or one for each", hosts))
	}
}

func (v *validator) follow(s *Server) {
	if s.Follow == "" {
		return
	}
	if _, ok := v.config.Server(s.Follow); !ok || s.Follow == s.Name {
		v.report(s.Name, "follow", s.Follow, "follow must name another server of this file")
	}
}

// isSlotName reports whether PostgreSQL accepts a name for a replication slot.
func isSlotName(name string) bool {
	return len(name) <= 63 && strings.IndexFunc(name, func(r rune) bool {
		return r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z')
	}) < 0
}

// serverNameProblem returns why a name cannot be the one of a server. The name becomes a directory below base_dir and a word of the command line.
func serverNameProblem(name string) string {
	switch {
	case name == "":
		return "a server section needs a name: [name]"
	case name == MainSection || name == AllServers:
		return name + " is a reserved word for a server"
	case len(name) > maxServerName:
		return fmt.Sprintf("the name of a server is at most %d bytes long", maxServerName)
	case name[0] == '.' || name[0] == '-':
		return "the name of a server must not begin with a dot or a dash: it becomes a directory below base_dir"
	case strings.ContainsAny(name, `/\`) || strings.ContainsFunc(name, unicode.IsControl):
		return "the name of a server must not contain slashes or control characters: it becomes a directory below base_dir"
	case strings.TrimSpace(name) != name:
		return "the name of a server must not begin or end with a blank"
	}
	return ""
}
