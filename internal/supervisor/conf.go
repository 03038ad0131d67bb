package supervisor

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/pgmoneta/pgmoneta-go/internal/config"
	"github.com/pgmoneta/pgmoneta-go/internal/mgmt"
)

// confLs tells where the configuration lies.
func (h handler) confLs() mgmt.Response {
	return mgmt.Response{
		"main_configuration_path":  h.config.Load().Path,
		"users_configuration_path": h.Files.Users,
		"admin_configuration_path": h.Files.Admins,
	}
}

// confGet returns every setting that is in force, defaults included.
func (h handler) confGet() mgmt.Response {
	c := h.config.Load()
	resp := mgmt.Response(h.confLs())
	for _, s := range c.Main.Settings() {
		resp[s.Name] = wire(s.Value)
	}
	resp["manifest"] = "CRC32C"
	resp["pidfile"] = c.Main.PIDPath()
	servers := mgmt.Document{}
	for i := range c.Servers {
		servers[c.Servers[i].Name] = h.confOf(&c.Servers[i])
	}
	resp["server"] = servers
	return resp
}

func (h handler) confOf(sc *config.Server) mgmt.Document {
	d := mgmt.Document{"manifest": "CRC32C", "online": false}
	for _, s := range sc.Settings() {
		d[s.Name] = wire(s.Value)
	}
	if v := h.server(sc.Name); v != nil {
		d["online"] = v.slot.Streaming.Load() == 1
	}
	return d
}

func wire(value any) any {
	if c, ok := value.(config.Coded); ok {
		return mgmt.Document{"string_value": c.Text, "value": c.Number}
	}
	return value
}

// confSet changes a setting of the running daemon, until it is stopped or reads its
// files again, or with Save for good. What needs a restart is told and not done.
func (h handler) confSet(_ context.Context, req *mgmt.Request) (mgmt.Response, error) {
	if req.Args == nil {
		return nil, &mgmt.Error{Code: mgmt.CodeConfSetNoRequest, Err: errors.New("no request")}
	}
	key, value := req.Args.Text("ConfigKey"), req.Args.Text("ConfigValue")
	if key == "" || value == "" {
		return nil, &mgmt.Error{Code: mgmt.CodeConfSetNoKeyOrValue, Err: errors.New("a key and a value are needed")}
	}
	section, name, err := splitKey(key)
	if err != nil {
		return nil, err
	}
	old, next, kept, err := h.set(section, name, value, req.Args.Bool("Save"))
	if err != nil {
		return nil, err
	}
	before, _ := old.Value(section, name)
	after, _ := next.Value(section, name)
	resp := mgmt.Response{"config_key": key, "restart_required": false, "status": "success", "message": "Configuration change applied successfully",
		"old_value": before, "new_value": after}
	if config.RestartNeeded(section, name) {
		resp = mgmt.Response{"config_key": key, "restart_required": true, "status": "success_restart_required",
			"message":       "Configuration change requires restart. Current values preserved.",
			"current_value": before, "requested_value": after}
	}
	if kept != "" {
		resp["saved"], resp["former"] = old.Path, kept
	}
	return resp, nil
}

// splitKey reads "key", "pgmoneta.key" and "server.<name>.key".
func splitKey(key string) (section, name string, err error) {
	parts := strings.Split(key, ".")
	switch {
	case len(parts) == 1:
		return config.MainSection, parts[0], nil
	case len(parts) == 2 && parts[0] == config.MainSection:
		return parts[0], parts[1], nil
	case len(parts) == 3 && parts[0] == "server":
		return parts[1], parts[2], nil
	}
	return "", "", fmt.Errorf("key %q: want key, pgmoneta.key or server.<name>.key", key)
}

// set puts a value into force that needs no restart, and returns the configurations
// before and after. Nothing changes when the whole would not be valid. With saving it
// is written into the file first, and kept is what the former file is called now.
func (s *Supervisor) set(section, name, value string, saving bool) (old, next *config.Config, kept string, err error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	old = s.config.Load()
	next, err = old.With(section, name, value)
	if err != nil {
		return nil, nil, "", err
	}
	if err := errors.Join(next.Validate(), supported(next)); err != nil {
		return nil, nil, "", err
	}
	if saving {
		if kept, err = save(old.Path, section, name, value); err != nil {
			return nil, nil, "", fmt.Errorf("nothing was changed: %w", err)
		}
	}
	if !config.RestartNeeded(section, name) {
		s.put(old, next)
		s.Log.Info("setting changed", "section", section, "key", name)
	}
	return old, next, kept, nil
}
