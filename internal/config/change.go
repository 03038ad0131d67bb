package config

import (
	"fmt"
	"maps"
	"slices"
)

// A Change is a difference between two configurations.
type Change struct {
	Section  string // MainSection or the name of a server
	Key      string // empty when a whole server came or went
	Old, New string // as the file would have them; empty for secrets
	Restart  bool   // not applied before the daemon starts again
	Worker   bool   // applied by starting the server's WAL worker again
}

// Changes lists what differs, main section first, servers in the order of the new configuration. Servers are matched by name.
func Changes(old, new *Config) []Change {
	changes := diff(MainSection, mainKeys(), &old.Main, &new.Main)
	for i := range new.Servers {
		s := &new.Servers[i]
		before, ok := old.Server(s.Name)
		if !ok {
			changes = append(changes, Change{Section: s.Name, New: s.Name})
			continue
		}
		changes = append(changes, diff(s.Name, serverKeys(), before, s)...)
	}
	for _, s := range old.Servers {
		if _, ok := new.Server(s.Name); !ok {
			changes = append(changes, Change{Section: s.Name, Old: s.Name})
		}
	}
	return changes
}

func diff[S any](section string, keys []key[S], old, new *S) []Change {
	var changes []Change
	for _, k := range keys {
		before, after := k.get(old), k.get(new)
		if before == after {
			continue
		}
		if k.secret {
			before, after = "", ""
		}
		changes = append(changes, Change{section, k.name, before, after, k.restart, k.worker})
	}
	return changes
}

// Apply returns the configuration that runs after a reload: the values of new, except those that need a restart, which stay as in old.
// The set of servers is that of new.
func Apply(old, new *Config) *Config {
	merged := new.clone()
	merged.Main = old.clone().Main
	carry(mainKeys(), &merged.Main, &new.Main)
	for i := range merged.Servers {
		s := &merged.Servers[i]
		if before, ok := old.Server(s.Name); ok {
			fresh := *s
			*s = *before
			carry(serverKeys(), s, &fresh)
		}
	}
	return merged
}

// carry copies the values that a reload applies.
func carry[S any](keys []key[S], to, from *S) {
	for _, k := range keys {
		if k.restart || k.get(to) == k.get(from) {
			continue
		}
		if err := k.set(to, k.get(from)); err != nil {
			panic(fmt.Sprintf("config: value of %s cannot be read back: %v", k.name, err))
		}
	}
}

// clone returns a copy whose sections can be changed.
func (c *Config) clone() *Config {
	copied := *c
	copied.Servers = slices.Clone(c.Servers)
	copied.lines = maps.Clone(c.lines)
	return &copied
}

// With returns a copy with one value changed, for "conf set". Only the keys that C pgmoneta lets a running daemon change are
// accepted. The value follows the grammar of the file. The error is a [Problem]; the copy is not validated.
func (c *Config) With(section, name, value string) (*Config, error) {
	copied := c.clone()
	var problem Problem
	if section == MainSection {
		problem = change(c.env, mainKeys(), &copied.Main, name, value)
		copied.Main.clampLevel()
	} else if s, ok := copied.Server(section); ok {
		problem = change(c.env, serverKeys(), s, name, value)
	} else {
		problem.Message = "no such server"
	}
	if problem.Message != "" {
		problem.File, problem.Section, problem.Key = c.Path, section, name
		return nil, problem
	}
	return copied, nil
}

// change sets one value and returns a Problem without a message when that went well.
func change[S any](env func(string) (string, bool), keys []key[S], s *S, name, value string) Problem {
	i := slices.IndexFunc(keys, func(k key[S]) bool { return k.name == name })
	if i < 0 {
		return Problem{Message: unknownKey(keys, name)}
	}
	if !keys[i].settable {
		return Problem{Message: "this key cannot be set while the daemon runs: change it in the file"}
	}
	read, err := readValue(value, keys[i].path, true, env)
	if err == nil {
		err = keys[i].set(s, read)
	}
	if err != nil {
		return Problem{Value: value, Message: err.Error()}
	}
	return Problem{}
}

func unknownKey[S any](keys []key[S], name string) string {
	var names []string
	for _, k := range keys {
		names = append(names, k.name)
	}
	if near, ok := nearest(name, names); ok {
		return fmt.Sprintf("unknown key; did you mean %s?", near)
	}
	return "unknown key"
}

// Value returns a value as the file would have it, "***" for a secret that is set. It reports whether section and key exist.
func (c *Config) Value(section, name string) (string, bool) {
	if section == MainSection {
		return show(mainKeys(), &c.Main, name)
	}
	if s, ok := c.Server(section); ok {
		return show(serverKeys(), s, name)
	}
	return "", false
}

func show[S any](keys []key[S], s *S, name string) (string, bool) {
	i := slices.IndexFunc(keys, func(k key[S]) bool { return k.name == name })
	if i < 0 {
		return "", false
	}
	value := keys[i].get(s)
	if keys[i].secret && value != "" {
		value = "***"
	}
	return value, true
}

// RestartNeeded reports whether "conf set" leaves a change of this key to a restart, or to a reload of the file that has it. As in
// C pgmoneta that includes how a server is reached: nobody is to cut off its WAL by a slip.
func RestartNeeded(section, name string) bool {
	if section == MainSection {
		return slices.ContainsFunc(mainKeys(), func(k key[Main]) bool { return k.name == name && k.restart })
	}
	return slices.ContainsFunc(serverKeys(), func(k key[Server]) bool { return k.name == name && (k.restart || k.worker) })
}
