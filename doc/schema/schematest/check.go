// Package schematest holds answers to the published schema, as strictly as only its authors may: a member that the
// schema does not name is a mistake of one of both.
//
// It knows the keywords that the schema uses and refuses others: $ref, type, properties, required, items,
// additionalProperties, maxProperties, enum, if, then, oneOf (at the top, told apart by the command).
package schematest

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/doc/schema"
)

// Check fails for everything that the schema says otherwise about an answer to a command. command is what the
// header calls it, with dashes for blanks.
func Check(t *testing.T, command, answer string) {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(answer), &v); err != nil {
		t.Errorf("%s: %v in:\n%s", command, err, answer)
		return
	}
	c := checker{defs: definitions(t)}
	c.check("$", []object{{"$ref": "#/$defs/answer-" + command}}, v)
	for _, p := range c.problems {
		t.Errorf("%s: %s", command, p)
	}
}

// Commands returns the commands whose answers the schema describes, with dashes for blanks. It fails when the list at
// its top is another one.
func Commands(t *testing.T) []string {
	t.Helper()
	var commands, listed []string
	for name := range definitions(t) {
		if command, ok := strings.CutPrefix(name, "answer-"); ok {
			commands = append(commands, command)
		}
	}
	var top struct {
		OneOf []map[string]string `json:"oneOf"`
	}
	if err := json.Unmarshal([]byte(schema.Answers()), &top); err != nil {
		t.Fatal(err)
	}
	for _, ref := range top.OneOf {
		listed = append(listed, strings.TrimPrefix(ref["$ref"], "#/$defs/answer-"))
	}
	slices.Sort(commands)
	slices.Sort(listed)
	if !slices.Equal(commands, listed) {
		t.Errorf("the schema defines answers to %q and lists %q", commands, listed)
	}
	return commands
}

type object = map[string]any

func definitions(t *testing.T) object {
	t.Helper()
	var doc struct {
		Defs object `json:"$defs"`
	}
	if err := json.Unmarshal([]byte(schema.Answers()), &doc); err != nil {
		t.Fatal(err)
	}
	return doc.Defs
}

type checker struct {
	defs     object
	problems []string
}

func (c *checker) report(path, format string, args ...any) {
	c.problems = append(c.problems, path+": "+fmt.Sprintf(format, args...))
}

// check holds a value to all schemas of its place.
func (c *checker) check(path string, place []object, v any) {
	place = c.expand(path, place, v)
	for _, s := range place {
		c.keywords(path, s, v)
	}
	switch v := v.(type) {
	case object:
		c.members(path, place, v)
	case []any:
		items := under(place, "items")
		for i, e := range v {
			c.check(fmt.Sprintf("%s[%d]", path, i), items, e)
		}
	}
}

// expand follows references and conditions.
func (c *checker) expand(path string, place []object, v any) []object {
	var all []object
	for _, s := range place {
		all = append(all, s)
		if ref, ok := s["$ref"].(string); ok {
			target, ok := c.defs[strings.TrimPrefix(ref, "#/$defs/")].(object)
			if !ok {
				c.report(path, "the schema has no %s", ref)
				continue
			}
			all = append(all, c.expand(path, []object{target}, v)...)
		}
		if condition, ok := s["if"].(object); ok && c.holds(condition, v) {
			all = append(all, c.expand(path, []object{s["then"].(object)}, v)...)
		}
	}
	return all
}

// holds evaluates a condition, which is made of properties and enum alone.
func (c *checker) holds(s object, v any) bool {
	if enum, ok := s["enum"].([]any); ok {
		return contains(enum, v)
	}
	members, _ := v.(object)
	properties, _ := s["properties"].(object)
	for key, sub := range properties {
		if value, there := members[key]; there && !c.holds(sub.(object), value) {
			return false
		}
	}
	return true
}

// keywords checks what concerns the value itself.
func (c *checker) keywords(path string, s object, v any) {
	for _, key := range slices.Sorted(maps.Keys(s)) {
		switch key {
		case "$ref", "if", "then", "description", "properties", "items", "additionalProperties": // seen elsewhere
		case "type":
			if !typed(s[key], v) {
				c.report(path, "%v is not of type %v", v, s[key])
			}
		case "enum":
			if !contains(s[key].([]any), v) {
				c.report(path, "%v is none of %v", v, s[key])
			}
		case "required":
			for _, member := range s[key].([]any) {
				if m, ok := v.(object); ok && m[member.(string)] == nil && !has(m, member.(string)) {
					c.report(path, "%v is missing", member)
				}
			}
		case "maxProperties":
			if m, ok := v.(object); ok && float64(len(m)) > s[key].(float64) {
				c.report(path, "%d members, at most %v are allowed", len(m), s[key])
			}
		default:
			c.report(path, "the schema uses %q, which is not checked", key)
		}
	}
}

func has(m object, key string) bool { _, ok := m[key]; return ok }

func contains(list []any, v any) bool {
	return slices.ContainsFunc(list, func(e any) bool { return reflect.DeepEqual(e, v) })
}

// members checks those of an object.
func (c *checker) members(path string, place []object, m object) {
	others := under(place, "additionalProperties")
	for _, key := range slices.Sorted(maps.Keys(m)) {
		var known []object
		for _, s := range place {
			properties, _ := s["properties"].(object)
			if sub, ok := properties[key].(object); ok {
				known = append(known, sub)
			}
		}
		if known == nil {
			known = others
		}
		if known == nil {
			c.report(path, "%s is not in the schema: %v", key, m[key])
			continue
		}
		c.check(path+"."+key, known, m[key])
	}
}

// under returns the schemas that a keyword has as its value.
func under(place []object, keyword string) (list []object) {
	for _, s := range place {
		if sub, ok := s[keyword].(object); ok {
			list = append(list, sub)
		}
	}
	return list
}

// typed reports whether a value has the type, or one of the types.
func typed(types, v any) bool {
	if list, ok := types.([]any); ok {
		return slices.ContainsFunc(list, func(one any) bool { return typed(one, v) })
	}
	number, isNumber := v.(float64)
	switch types {
	case "string":
		_, ok := v.(string)
		return ok
	case "boolean":
		_, ok := v.(bool)
		return ok
	case "object":
		_, ok := v.(object)
		return ok
	case "array":
		_, ok := v.([]any)
		return ok
	case "null":
		return v == nil
	case "integer":
		return isNumber && number == math.Trunc(number)
	case "number":
		return isNumber
	}
	return false
}
