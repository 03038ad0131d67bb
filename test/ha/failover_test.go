//go:build ha

package ha

import (
	"fmt"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

// patience is how long after there is a new primary its WAL must be received.
const patience = 30 * time.Second

// A fault takes the primary's place away from a node. It returns what brings the node back.
type fault struct {
	name  string
	cause func(t *testing.T, c *cluster, n *node) (mend func())
}

func faults() []fault {
	return []fault{
		{"kill", func(t *testing.T, c *cluster, n *node) func() {
			n.kill()
			return func() { c.startPatroni(t, n) }
		}},
		{"switchover", func(t *testing.T, c *cluster, n *node) func() {
			c.patronictl(t, "switchover", "--leader", n.name(), "--force")
			return func() {}
		}},
		{"network", func(t *testing.T, c *cluster, n *node) func() {
			c.net.cut(t, n)
			return func() { c.net.heal(t, n) }
		}},
	}
}

// Under load the primary is killed, switched over and cut off. The receiver follows within seconds, without a hole and
// without help, and both the first backup and a new one can be restored to the last row the cluster acknowledged.
//
// Rows are acknowledged when the synchronous standby that Patroni chose has them; pgmoneta is not one. So every
// acknowledged row survives on the new primary, which is checked too, and the restored servers are compared with it.
func TestFollow(t *testing.T) {
	c := startCluster(t)
	d := startDaemon(t, c)
	first := map[string]string{} // backups
	for _, section := range sections() {
		pgtest.WaitFor(t, patience, "the stream", func() error {
			_, timeline, err := c.leader(nil)
			if err != nil {
				return err
			}
			return d.streams(t, section, timeline)
		})
		first[section] = d.must(t, "backup", section)["Backup"].(string)
	}
	load := pgtest.StartLoad(t, c.proxy, 2)
	for _, f := range faults() {
		load.WaitFor(t, 200)
		c.follow(t, d, f)
	}
	load.WaitFor(t, 200)
	acked := load.Stop()
	leader, timeline, err := c.leader(nil)
	if err != nil {
		t.Fatal(err)
	}
	primary := leader.superuser()
	if missing := acked.Missing(t, primary); len(missing) > 0 {
		t.Errorf("the cluster itself lost %d of %d acknowledged rows: %s", len(missing), len(acked), missing[0])
	}
	primary.Exec(t, "create table last_change as select 1")
	end, err := pg.ParseLSN(primary.QueryString(t, "select pg_current_wal_flush_lsn()"))
	if err != nil {
		t.Fatal(err)
	}
	for _, section := range sections() {
		d.waitFlushed(t, section, end)
		d.checkArchive(t, section, timeline)
		for _, label := range []string{first[section], d.must(t, "backup", section)["Backup"].(string)} {
			copy := d.restored(t, section, label)
			pgtest.EqualContent(t, primary, copy)
			copy.Stop(t, pgtest.Immediate)
		}
	}
	t.Logf("%d rows acknowledged, timeline %d", len(acked), timeline)
}

// follow causes a fault and measures how soon after it there is a new primary, and how soon after that its WAL is received.
func (c *cluster) follow(t *testing.T, d *daemon, f fault) {
	t.Helper()
	old, before, err := c.leader(nil)
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	mend := f.cause(t, c, old)
	timeline := 0
	pgtest.WaitFor(t, 2*time.Minute, "a new primary", func() (err error) {
		// One that is just being promoted still tells the old timeline.
		if _, timeline, err = c.leader(old); err == nil && timeline <= before {
			err = fmt.Errorf("timeline %d", timeline)
		}
		return err
	})
	elected := time.Now()
	t.Logf("%s: new primary after %.1f s, timeline %d to %d", f.name, elected.Sub(begin).Seconds(), before, timeline)
	resumed := map[string]time.Duration{}
	pgtest.WaitFor(t, patience, f.name+": the streams", func() (err error) {
		for _, section := range sections() {
			if resumed[section] != 0 {
				continue
			}
			if serr := d.streams(t, section, timeline); serr != nil {
				err = serr
				continue
			}
			resumed[section] = time.Since(elected)
		}
		return err
	})
	t.Logf("%s: WAL is received again %.1f s (hosts) and %.1f s (proxy) after the new primary", f.name, resumed["hosts"].Seconds(), resumed["proxy"].Seconds())
	mend()
	c.waitHealthy(t)
}
