package console

import (
	"fmt"
	"io"
	"strings"

	"github.com/pgmoneta/pgmoneta-go/internal/mgmt"
)

// RenderSetting prints one setting out of a successful response to conf get: its value on a line of its own, in
// format JSON the response reduced to it. The key is "key", "pgmoneta.key", "server.name.key", or
// one of the subtrees "server" and "server.name". It reports whether there is such a setting.
func RenderSetting(w io.Writer, doc mgmt.Document, key string, format Format) (found bool, err error) {
	doc = doc.Clone()
	value, name, found := setting(doc.Object("Response"), key)
	if format == JSON {
		return found, renderJSON(w, reduced(doc, name, value, found))
	}
	if !found {
		_, err := io.WriteString(w, "Error\n")
		return false, err
	}
	if tree, ok := value.(mgmt.Document); ok && tree["string_value"] == nil {
		return true, renderText(w, tree)
	}
	_, err = fmt.Fprintln(w, settingText(value))
	return true, err
}

func settingText(value any) string {
	if pair, ok := value.(mgmt.Document); ok {
		value = pair["string_value"]
	}
	return scalar(value)
}

// setting finds key and the last part of it.
func setting(resp mgmt.Document, key string) (value any, name string, found bool) {
	parts := strings.Split(key, ".")
	if len(parts) == 2 && strings.EqualFold(parts[0], "pgmoneta") {
		parts = parts[1:]
	}
	name = parts[len(parts)-1]
	if len(parts) > 3 || (len(parts) > 1 && parts[0] != "server") {
		return nil, name, false
	}
	value = resp
	for _, part := range parts {
		tree, _ := value.(mgmt.Document)
		if value, found = tree[part]; !found {
			return nil, name, false
		}
	}
	return value, name, true
}

// reduced keeps of a response only the setting asked for. A setting that does not exist turns it into a failure.
func reduced(doc mgmt.Document, name string, value any, found bool) mgmt.Document {
	if found {
		doc["Response"] = mgmt.Document{name: value}
		return doc
	}
	doc["Response"] = mgmt.Document{}
	if outcome := doc.Object("Outcome"); outcome != nil {
		outcome["Status"] = false
	}
	return doc
}

// RenderChange prints the response to conf set, a success or a refusal.
func RenderChange(w io.Writer, doc mgmt.Document, format Format) error {
	if format == JSON {
		return renderJSON(w, doc)
	}
	_, err := io.WriteString(w, changeText(doc))
	return err
}

func changeText(doc mgmt.Document) string {
	resp := doc.Clone().Object("Response")
	text := func(key string) string { return scalar(resp[key]) }
	switch {
	case !doc.Outcome().Status:
		return fmt.Sprintf("Configuration change failed\n   Invalid key format: '%s'\n"+
			"   Valid formats: 'key', 'section.key', or 'section.context.key'\n", printable(doc.Object("Request").Text("ConfigKey")))
	case resp.Bool("restart_required"), resp.Text("status") == "success_restart_required":
		return fmt.Sprintf("Configuration change requires manual restart\n   Parameter: %s\n"+
			"   Current value: %s (unchanged in running instance)\n"+
			"   Requested value: %s (cannot be applied to live instance)\n"+
			"   Status: Requires full service restart\n", text("config_key"), text("current_value"), text("requested_value"))
	default:
		return fmt.Sprintf("Configuration change applied successfully\n   Parameter: %s\n   Old value: %s\n   New value: %s\n"+
			"   Status: Active (applied to running instance)\n", text("config_key"), text("old_value"), text("new_value"))
	}
}
