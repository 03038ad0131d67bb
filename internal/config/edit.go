package config

import (
	"fmt"
	"slices"
	"strings"
)

// Edit returns the text of a daemon configuration with one value changed: in its line, or in a new one behind the last of
// its section. Every other line stays as it is. The result is parsed before it is returned, so that it holds exactly that change,
// and the value is checked alone and with the others, without looking at the file system. A value that is wrong in the file may be
// mended; any other mistake there is refused.
// name and env are as in [ParseBytes]. value follows the grammar of the file.
func Edit(name string, data []byte, env func(string) (string, bool), section, key, value string) ([]byte, error) {
	before := newParser(name, env)
	before.parse(data)
	if others := before.errorsBeside(section, key); len(others) > 0 {
		return nil, fmt.Errorf("the file is not changed, because it is not right as it is: %w", others)
	}
	value = strings.Trim(value, blanks)
	text := before.config.edited(string(data), section, key, strings.TrimRight(key+" = "+value, blanks))
	if text == "" {
		return nil, fmt.Errorf("%s: there is no section [%s]", name, printable(section))
	}
	after, err := ParseBytes(name, []byte(text), env)
	if err != nil {
		return nil, err
	}
	if err := after.checkEdit(before.config, section, key, value); err != nil {
		return nil, err
	}
	if written, err := NewText(name, []byte(text)).Value(section, key); err != nil || written != value {
		return nil, after.refusal(section, key, value, "# and ; begin a comment: put the value in quotes")
	}
	if err := after.problemsAt(section, key).orNil(); err != nil {
		return nil, err
	}
	return []byte(text), nil
}

// errorsBeside returns the mistakes that are not about the value of a key.
func (p *parser) errorsBeside(section, key string) Errors {
	return slices.DeleteFunc(slices.Clone(p.errs), func(e Problem) bool {
		return e.Section == section && e.Key == key && p.config.lines[place{section, key}] == e.Line
	})
}

// checkEdit checks that only one value differs from before, and that it is one that counts.
func (c *Config) checkEdit(before *Config, section, key, value string) error {
	for _, w := range c.Warnings {
		if w.Section == section && w.Key == key {
			return w
		}
	}
	stray := slices.ContainsFunc(Changes(before, c), func(d Change) bool {
		return d.Section != section || d.Key != key && d.Key != "compression_level" // whose bounds are those of the codec
	})
	if stray {
		return c.refusal(section, key, value, "this would change more than the one value")
	}
	return nil
}

// refusal is what is wrong with a new value.
func (c *Config) refusal(section, key, value, message string) error {
	if section == MainSection && isSecret(mainKeys(), key) || section != MainSection && isSecret(serverKeys(), key) {
		value = ""
	}
	return Problem{c.Path, c.lines[place{section, key}], section, key, value, message}
}

func isSecret[S any](keys []key[S], name string) bool {
	return slices.ContainsFunc(keys, func(k key[S]) bool { return k.name == name && k.secret })
}

// edited puts line where key stands, or at the end of its section; "" when there is none.
func (c *Config) edited(text, section, key, line string) string {
	all := strings.SplitAfter(text, "\n")
	if at := c.lines[place{section, key}]; at > 0 {
		_, ending, _ := strings.Cut(all[at-1], strings.TrimRight(all[at-1], "\r\n"))
		all[at-1] = line + ending
		return strings.Join(all, "")
	}
	at := c.lines[place{section, ""}]
	if at == 0 {
		return ""
	}
	end := sectionEnd(all, at)
	for end > at && strings.TrimSpace(all[end-1]) == "" {
		end--
	}
	if !strings.HasSuffix(all[end-1], "\n") {
		all[end-1] += "\n"
	}
	return strings.Join(slices.Insert(all, end, line+"\n"), "")
}
