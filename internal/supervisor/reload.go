package supervisor

import (
	"errors"
	"slices"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/config"
	"github.com/pgmoneta/pgmoneta-go/internal/mgmt"
	"github.com/pgmoneta/pgmoneta-go/internal/vault"
)

// An effect is what a reload did with a difference.
type effect string

const (
	effectApplied effect = "applied"
	effectWorker  effect = "WAL worker started again"
	effectAdded   effect = "server added"
	effectRemoved effect = "server removed"
	effectRestart effect = "waits for a restart"
)

// effectOf tells what becomes of a difference.
func effectOf(ch config.Change) effect {
	switch {
	case ch.Key == "" && ch.Old == "":
		return effectAdded
	case ch.Key == "":
		return effectRemoved
	case ch.Worker:
		return effectWorker
	case !ch.Restart && applied[ch.Key]:
		return effectApplied
	}
	return effectRestart
}

// applied are the keys whose change a reload carries into the running daemon:
// at once, or with the next job.
var applied = map[string]bool{
	"log_level": true, "metrics": true, "metrics_cache_max_age": true, "management": true, "compression": true, "compression_level": true,
	"workers": true, "backup_source": true, "cross_check": true, "allow_corrupt": true, "job_nice": true, "max_rate": true, "passfile": true,
	"retention": true, "retention_count": true, "retention_min": true, "recovery_window": true, "delete_delay": true, "wal_keep": true, "backup_on_start": true,
	"schedule": true, "schedule_jitter": true, "verification": true, "hook_before": true, "hook_after": true, "space_low": true, "space_critical": true,
	"create_slot": true, "rehearse_bindir": true, "rehearse_amcheck": true, "rehearse_checks": true, "rehearse_settings": true,
}

// reloadFiles answers "conf reload".
func (h handler) reloadFiles() (mgmt.Response, error) {
	changes, err := h.reload()
	if err != nil {
		return nil, err
	}
	restart, rows := false, []mgmt.Document{}
	for _, ch := range changes {
		e := effectOf(ch)
		restart = restart || e == effectRestart
		rows = append(rows, rowOf(ch, e))
	}
	resp := mgmt.Response{"Restart": restart}
	if len(rows) > 0 { // without any it is the answer of C pgmoneta
		resp["Changes"] = rows
	}
	return resp, nil
}

func rowOf(ch config.Change, e effect) mgmt.Document {
	row := mgmt.Document{"Section": ch.Section, "Effect": string(e)}
	for member, text := range map[string]string{"Key": ch.Key, "Old": ch.Old, "New": ch.New} {
		if text != "" {
			row[member] = text
		}
	}
	return row
}

// reload reads the files again and applies what can be applied to a running
// daemon, all or nothing. It returns what differs.
func (s *Supervisor) reload() ([]config.Change, error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	changes, err := s.reloadAll()
	if s.reloadBad.Store(err != nil); err == nil {
		s.reloaded.Store(time.Now().UnixNano())
	}
	if err != nil {
		s.Log.Error("reload refused, nothing was changed", "err", err)
		return nil, err
	}
	for _, ch := range changes {
		log := s.Log.Info
		if effectOf(ch) == effectRestart {
			log = s.Log.Warn
		}
		log("reloaded", "section", ch.Section, "key", ch.Key, "old", ch.Old, "new", ch.New, "effect", string(effectOf(ch)))
	}
	return changes, nil
}

// reloadAll does first what may be refused, then what cannot fail.
func (s *Supervisor) reloadAll() ([]config.Change, error) {
	old := s.config.Load()
	next, err := config.Load(old.Path)
	if err != nil {
		return nil, err
	}
	current := config.Apply(old, next)
	if err := errors.Join(supported(next), s.sealable(next), current.Validate()); err != nil {
		return nil, err
	}
	users, admins, err := s.loadAccounts(next)
	if err != nil {
		return nil, err
	}
	leaving := s.missing(current)
	allow, err := s.forbidJobs(leaving)
	if err != nil {
		return nil, err
	}
	joining, err := s.enlist(current, s.unknown(current))
	if err != nil {
		allow()
		return nil, err
	}
	s.users.Store(users)
	s.admins.Store(admins)
	s.put(old, current)
	s.exchange(current, joining, leaving)
	return config.Changes(old, next), nil
}

// loadAccounts reads who is known, here and at the servers.
func (s *Supervisor) loadAccounts(c *config.Config) (users, admins *vault.Users, err error) {
	if s.LoadUsers != nil {
		users, err = s.LoadUsers(c)
	}
	if err == nil && s.LoadAdmins != nil {
		admins, err = s.LoadAdmins()
	}
	return users, admins, err
}

// missing returns the servers that a configuration has no more.
func (s *Supervisor) missing(c *config.Config) (list []*server) {
	for _, v := range s.servers {
		if _, ok := c.Server(v.name); !ok {
			list = append(list, v)
		}
	}
	return list
}

// unknown returns the sections of servers that do not run yet.
func (s *Supervisor) unknown(c *config.Config) (list []config.Server) {
	for _, sc := range c.Servers {
		if s.server(sc.Name) == nil {
			list = append(list, sc)
		}
	}
	return list
}

// exchange makes the fleet that of a configuration, in its order.
func (s *Supervisor) exchange(c *config.Config, joining, leaving []*server) {
	if len(joining)+len(leaving) == 0 {
		return
	}
	all := slices.Concat(s.fleet.list(), joining)
	var list []*server
	for _, sc := range c.Servers {
		i := slices.IndexFunc(all, func(v *server) bool { return v.name == sc.Name })
		list = append(list, all[i])
	}
	// Before they are in the fleet, whose end ends what has begun of its servers.
	for _, v := range joining {
		s.begin(v)
	}
	s.fleet.set(list)
	for _, v := range leaving {
		s.remove(v)
	}
}

// put makes a configuration the one in force.
func (s *Supervisor) put(old, current *config.Config) {
	s.config.Store(current)
	s.Level.Set(current.Main.LogLevel)
	s.Segment.Generation().Add(1)
	if current.Main.Metrics != old.Main.Metrics || current.Main.Management != old.Main.Management {
		s.listeners.rebind(s, current)
	}
	again := map[string]bool{}
	for _, ch := range config.Changes(old, current) {
		if v := s.server(ch.Section); ch.Worker && v != nil && !again[v.name] {
			again[v.name] = true
			v.receiver.again()
		}
	}
}
