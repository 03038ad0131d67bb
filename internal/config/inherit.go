package config

import (
	"cmp"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// Workers returns the number of workers for a server, at most one for each CPU; 0 means that the job does its work alone.
func (c *Config) Workers(s *Server) int {
	n := c.Main.Workers
	if s.Workers >= 0 {
		n = s.Workers
	}
	return min(n, runtime.GOMAXPROCS(0))
}

// An Address is where a server listens.
type Address struct {
	Host string
	Port int
}

// Addresses returns the hosts of a server with their ports.
func (s *Server) Addresses() []Address {
	var list []Address
	for i, host := range splitList(s.Host, ",") {
		a := Address{Host: host}
		if len(s.Ports) > 0 {
			a.Port = s.Ports[min(i, len(s.Ports)-1)]
		}
		list = append(list, a)
	}
	return list
}

// Follows returns which of the hosts is wanted.
func (s *Server) Follows() Target {
	switch {
	case s.Target != TargetUnset:
		return s.Target
	case len(s.Addresses()) > 1:
		return TargetPrimary
	}
	return TargetAny
}

// MaxRate returns the limit for a server in bytes per second, 0 for none.
func (c *Config) MaxRate(s *Server) int64 {
	if s.MaxRate >= 0 {
		return s.MaxRate
	}
	return c.Main.MaxRate
}

// BackupSource returns how backups of the server read its data directory.
func (c *Config) BackupSource(s *Server) BackupSource {
	if s.BackupSource != BackupSourceUnset {
		return s.BackupSource
	}
	return c.Main.BackupSource
}

// WALArchive returns the directory to which another program archives the server, empty for none.
func (c *Config) WALArchive(s *Server) string {
	if s.WALArchive != "" {
		return s.WALArchive
	}
	return c.Main.WALArchive
}

// Retention returns the retention of a server; each field the server leaves unset is that of the main section.
func (c *Config) Retention(s *Server) Retention { return s.Retention.or(c.Main.Retention) }

// RetentionCount returns how many of the newest backups of a server stay.
func (c *Config) RetentionCount(s *Server) int {
	return firstPositive(s.RetentionCount, c.Main.RetentionCount)
}

// RetentionMin returns how many of the newest valid backups of a server stay, at least 1.
func (c *Config) RetentionMin(s *Server) int {
	return max(firstPositive(s.RetentionMin, c.Main.RetentionMin), 1)
}

// RecoveryWindow returns the time of which every moment of a server stays restorable, 0 for what the days of its retention keep.
func (c *Config) RecoveryWindow(s *Server) time.Duration {
	return cmp.Or(s.RecoveryWindow, c.Main.RecoveryWindow)
}

// DeleteDelay returns how long a deleted backup of a server can be brought back, 0 for not at all.
func (c *Config) DeleteDelay(s *Server) time.Duration {
	return cmp.Or(s.DeleteDelay, c.Main.DeleteDelay)
}

// WALKeep returns which WAL of a server is kept for backups older than its window.
func (c *Config) WALKeep(s *Server) WALKeep { return cmp.Or(s.WALKeep, c.Main.WALKeep, WALKeepNeeded) }

// BackupOnStart reports whether a server without a valid backup gets one.
func (c *Config) BackupOnStart(s *Server) bool {
	if s.BackupOnStart == Unset {
		return c.Main.BackupOnStart
	}
	return s.BackupOnStart == Yes
}

// HookBefore returns the program that is run before the jobs of a server, empty for none.
func (c *Config) HookBefore(s *Server) string { return firstSet(s.HookBefore, c.Main.HookBefore) }

// HookAfter returns the program that is run after the jobs of a server, empty for none.
func (c *Config) HookAfter(s *Server) string { return firstSet(s.HookAfter, c.Main.HookAfter) }

// Progress reports whether progress of a server is tracked.
func (c *Config) Progress(s *Server) bool {
	if s.Progress == Unset {
		return c.Main.Progress
	}
	return s.Progress == Yes
}

// CreateSlot reports whether the replication slot of a server is created when it is missing.
func (c *Config) CreateSlot(s *Server) bool {
	if s.CreateSlot == Unset {
		return c.Main.CreateSlot == Yes
	}
	return s.CreateSlot == Yes
}

// Workspace returns the workspace directory of a server, empty when there is none.
func (c *Config) Workspace(s *Server) string { return firstSet(s.Workspace, c.Main.Workspace) }

// Passfile returns the pgpass file of a server, empty when there is none.
func (c *Config) Passfile(s *Server) string { return firstSet(s.Passfile, c.Main.Passfile) }

// S3 returns the S3 settings of a server. Its TLS switch counts only when it also has a port or an endpoint of its own.
func (c *Config) S3(s *Server) S3 {
	m, o := c.Main.S3, s.S3
	out := S3{
		UseTLS:          m.UseTLS,
		StorageClass:    firstSet(o.StorageClass, m.StorageClass),
		Endpoint:        firstSet(o.Endpoint, m.Endpoint),
		Port:            firstPositive(o.Port, m.Port),
		Region:          firstSet(o.Region, m.Region),
		AccessKeyID:     firstSet(o.AccessKeyID, m.AccessKeyID),
		SecretAccessKey: m.SecretAccessKey,
		Bucket:          firstSet(o.Bucket, m.Bucket),
		BaseDir:         firstSet(o.BaseDir, m.BaseDir),
	}
	if o.Port != 0 || o.Endpoint != "" {
		out.UseTLS = o.UseTLS
	}
	if !o.SecretAccessKey.IsZero() {
		out.SecretAccessKey = o.SecretAccessKey
	}
	return out
}

func firstSet(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// PIDPath returns the path of the pid file: the key pidfile, else pgmoneta.<host>.pid in the socket directory.
func (m *Main) PIDPath() string {
	if m.PIDFile != "" {
		return m.PIDFile
	}
	host := m.Host
	if host == "*" {
		host = "all"
	}
	return filepath.Join(m.UnixSocketDir, "pgmoneta."+strings.ReplaceAll(host, "/", "_")+".pid")
}

// SocketPath returns the path of the management socket.
func (m *Main) SocketPath() string { return filepath.Join(m.UnixSocketDir, SocketName) }

// SocketName is the file name of the management socket.
const SocketName = ".s.pgmoneta"
