package config

import (
	"fmt"
	"slices"
	"strings"
)

// Edit returns the text of a daemon configuration with one value changed: in its line, or in a new one behind the last of
// its section. Every other line stays as it is. The result is parsed before it is returned, so that it holds exactly that change.
// name and env are as in [ParseBytes]. value follows the grammar of the file.
func Edit(name string, data []byte, env func(string) (string, bool), section, key, value string) ([]byte, error) {
	before, err := ParseBytes(name, data, env)
	if err != nil {
		return nil, fmt.Errorf("the file is not changed, because it is not right as it is: %w", err)
	}
	text := before.edited(string(data), section, key, key+" = "+value)
	if text == "" {
		return nil, fmt.Errorf("%s: there is no section [%s]", name, printable(section))
	}
	after, err := ParseBytes(name, []byte(text), env)
	if err != nil {
		return nil, err
	}
	stray := slices.ContainsFunc(Changes(before, after), func(c Change) bool {
		return c.Section != section || c.Key != key && c.Key != "compression_level" // whose bounds are those of the codec
	})
	if stray {
		return nil, fmt.Errorf("%s: value %s would change more than %s", name, printable(value), printable(key))
	}
	return []byte(text), nil
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
	end := at // behind the last line with something on it
	for i := at; i < len(all) && !strings.HasPrefix(strings.TrimSpace(all[i]), "["); i++ {
		if strings.TrimSpace(all[i]) != "" {
			end = i + 1
		}
	}
	if !strings.HasSuffix(all[end-1], "\n") {
		all[end-1] += "\n"
	}
	return strings.Join(slices.Insert(all, end, line+"\n"), "")
}
