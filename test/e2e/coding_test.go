package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/mgmt"
	"github.com/pgmoneta/pgmoneta-go/internal/vault"
	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

// A client drives a daemon in one coding.
type client struct {
	daemon *daemon
	keys   mgmt.KeySource
	coding mgmt.Coding
	door   *mgmt.Remote // nil for the socket
}

func (c *client) dial(t *testing.T) *mgmt.Client {
	t.Helper()
	var conn *mgmt.Client
	var err error
	if c.door != nil {
		conn, err = mgmt.DialRemote(t.Context(), *c.door)
	} else {
		conn, err = mgmt.Dial(t.Context(), c.daemon.path(mgmt.SocketName))
	}
	if err != nil {
		t.Fatal(err)
	}
	conn.Version, conn.Coding, conn.Keys = "0.22.0", c.coding, c.keys
	return conn
}

// keysOf returns the master key of a daemon, which belongs to another user than the test's.
func keysOf(t *testing.T, d *daemon) mgmt.KeySource {
	t.Helper()
	content, err := os.ReadFile(d.path(".pgmoneta/master.key"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := vault.ParseMasterKey(content)
	if err != nil {
		t.Fatal(err)
	}
	return func() (*vault.MasterKey, error) { return key, nil }
}

func (c *client) call(t *testing.T, command mgmt.Command, args mgmt.Document) mgmt.Document {
	t.Helper()
	conn := c.dial(t)
	defer conn.Close()
	doc, err := conn.Call(t.Context(), command, args)
	if err != nil {
		t.Fatalf("%s in %+v: %v", command, c.coding, err)
	}
	header := doc["Header"].(mgmt.Document)
	if header["Command"] != int64(command) || header["Compression"] != int64(c.coding.Compression) || header["Encryption"] != int64(c.coding.Encryption) {
		t.Errorf("%s in %+v is answered with the header %v", command, c.coding, header)
	}
	return doc
}

// must calls a command that succeeds and returns its response.
func (c *client) must(t *testing.T, command mgmt.Command, args mgmt.Document) mgmt.Document {
	t.Helper()
	doc := c.call(t, command, args)
	if o := doc.Outcome(); !o.Status {
		t.Fatalf("%s %v in %+v: %+v", command, args, c.coding, o)
	}
	response, _ := doc["Response"].(mgmt.Document)
	return response
}

// Every command is answered in every compression and encryption that a client may ask for, by a daemon with a real
// server. Jobs run in each compression and each encryption, in the long form in each pair of them.
func TestEveryCommandInEveryCoding(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgtest.Options{WALSegmentSize: 1})
	d := prepareDaemon(t, map[string]*pgtest.Server{"primary": s})
	d.mustAdmin(t, "master-key", "-P", "passphrase of the test")
	d.start(t)
	d.waitStreaming(t, "primary")
	c := &client{daemon: d, keys: keysOf(t, d)}
	kept := c.backup(t)
	for c.coding.Compression = range mgmt.CompressionBzip2 + 1 {
		for c.coding.Encryption = range mgmt.EncryptionAES128 + 1 {
			c.ask(t, kept)
			if long() || int(c.coding.Encryption) == int(c.coding.Compression)%4 {
				c.work(t)
			}
		}
	}
	c.must(t, mgmt.Shutdown, nil)
	select {
	case <-d.exited:
	case <-time.After(time.Minute):
		t.Error("the daemon did not end")
	}
}

// backup takes a backup and returns its label.
func (c *client) backup(t *testing.T) string {
	t.Helper()
	return fmt.Sprint(c.must(t, mgmt.Backup, mgmt.Document{"Server": "primary"})["Backup"])
}

// ask calls every command that the daemon answers by itself, about a backup that is the only one.
func (c *client) ask(t *testing.T, label string) {
	t.Helper()
	server, one := mgmt.Document{"Server": "primary"}, mgmt.Document{"Server": "primary", "Backup": label}
	for _, command := range []mgmt.Command{mgmt.Ping, mgmt.Status, mgmt.StatusDetails, mgmt.ConfLs, mgmt.Reload, mgmt.Reset, mgmt.Jobs} {
		c.must(t, command, nil)
	}
	for _, command := range []mgmt.Command{mgmt.Info, mgmt.Retain, mgmt.Expunge} {
		c.must(t, command, one)
	}
	c.must(t, mgmt.Schedule, server)
	list := c.must(t, mgmt.ListBackup, mgmt.Document{"Server": "primary", "Sort": "asc"})
	if n := list["NumberOfBackups"]; n != int64(1) {
		t.Errorf("%v backups are listed in %+v", n, c.coding)
	}
	c.must(t, mgmt.ConfGet, mgmt.Document{"ConfigKey": "compression"})
	c.must(t, mgmt.ConfSet, mgmt.Document{"ConfigKey": "log_level", "ConfigValue": "debug"})
	key, comment := fmt.Sprintf("%d-%d", c.coding.Compression, c.coding.Encryption), "\"ß\" and 'ü'\\"
	c.must(t, mgmt.Annotate, mgmt.Document{"Server": "primary", "Backup": label, "Action": "add", "Key": key, "Comment": comment})
	c.must(t, mgmt.Mode, mgmt.Document{"Server": "primary", "Action": "online"})
	c.must(t, mgmt.Progress, mgmt.Document{"Server": "primary", "Command": "backup"})
	for _, command := range []mgmt.Command{mgmt.S3Ls, mgmt.S3Restore, 999} {
		if o := c.call(t, command, server).Outcome(); o.Status || o.Code == 0 {
			t.Errorf("%s in %+v: %+v", command, c.coding, o)
		}
	}
}

// work calls every command that a job does, and deletes the backup it was done to.
func (c *client) work(t *testing.T) {
	t.Helper()
	label, directory := c.backup(t), filepath.Join(c.daemon.dir, "out")
	if err := os.Mkdir(directory, 0o700); err != nil {
		t.Fatal(err)
	}
	pgtest.Own(t, directory)
	for _, command := range []mgmt.Command{mgmt.RepoCheck, mgmt.RepoStats, mgmt.WALCheck} {
		c.must(t, command, mgmt.Document{"Server": "primary"})
	}
	c.must(t, mgmt.Retention, mgmt.Document{"Server": "primary", "DryRun": true})
	c.must(t, mgmt.Verify, mgmt.Document{"Server": "primary", "Backup": label, "Directory": directory, "Files": "all"})
	for _, command := range []mgmt.Command{mgmt.Restore, mgmt.Archive} {
		c.must(t, command, mgmt.Document{"Server": "primary", "Backup": label, "Position": "current", "Directory": directory})
	}
	if err := os.RemoveAll(directory); err != nil {
		t.Fatal(err)
	}
	one := mgmt.Document{"Server": "primary", "Backup": label}
	c.must(t, mgmt.Delete, one)
	if o := c.call(t, mgmt.Info, one).Outcome(); o.Status || o.Code != mgmt.CodeInfoNoBackup {
		t.Errorf("info of a deleted backup in %+v: %+v", c.coding, o)
	}
}
