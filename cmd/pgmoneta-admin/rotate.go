package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/pgmoneta/pgmoneta-go/internal/config"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/internal/vault"
)

// A site is what the master key seals on this machine.
type site struct {
	key      string             // file of the master key
	base     string             // base_dir
	servers  []*repo.Repository // those with keys
	accounts []string           // users and admins files
}

// masterKeyRotate replaces the master key. A run that ends in the middle leaves the old and the new one valid, and the next run goes on.
func (p *program) masterKeyRotate(req *request) error {
	ctx := context.Background()
	s, err := p.site(ctx, req)
	if err != nil {
		return err
	}
	change, err := vault.BeginChange(s.key, func() (vault.Secret, error) {
		return p.password(req, passwordKind{prompt: "New master key: ", check: vault.CheckPassphrase})
	})
	if err != nil {
		return err
	}
	defer change.Close()
	if change.Resumed {
		p.warn("going on with the new master key of a run that did not come to its end")
	}
	if err := s.reseal(ctx, change); err != nil {
		return fmt.Errorf("%w\nthe old and the new master key are both valid now; run the command again", err)
	}
	kept, err := change.Finish(p.now())
	if err != nil {
		return err
	}
	p.warn(fmt.Sprintf("the old master key is kept as %s: objects and files that this run did not find need it", kept))
	for _, r := range s.servers {
		if err := r.DropWraps(ctx, change.New); err != nil {
			return fmt.Errorf("the new master key is in use, but keys wrapped with the old one are still there; the next rotation removes them: %w", err)
		}
	}
	p.warn(fmt.Sprintf("%d repositories and %d files are sealed with the new master key: restart the daemon, and copy the key to wherever pgmoneta-wal runs",
		len(s.servers), len(s.accounts)))
	return nil
}

// reseal seals everything with the new key that the old one has sealed.
func (s *site) reseal(ctx context.Context, change *vault.Change) error {
	either := change.Either()
	for _, r := range s.servers {
		r.UseKeys(repo.Keys{Master: func() (*vault.MasterKey, error) { return either, nil }})
		if err := r.WrapKeys(ctx, change.New); err != nil {
			return err
		}
	}
	for _, file := range s.accounts {
		if err := vault.ResealUsers(file, either); err != nil {
			return err
		}
	}
	return nil
}

// keyRotate adds a key to repositories.
func (p *program) keyRotate(req *request) error {
	ctx := context.Background()
	s, err := p.site(ctx, req)
	if err != nil {
		return err
	}
	if len(s.servers) == 0 {
		return fmt.Errorf("no repository below %s has a key: a repository gets its first when something is stored with encryption on", s.base)
	}
	for _, r := range s.servers {
		r.UseKeys(repo.Keys{Master: func() (*vault.MasterKey, error) { return p.loadKey(s.key) }})
		n, err := r.RotateKey(ctx)
		if err != nil {
			return err
		}
		p.warn(fmt.Sprintf("server %q: new objects are sealed with key %d", r.Server(), n))
	}
	return nil
}

// site finds what the options name: repositories below base_dir, also of servers that are not configured any more, and users and admins files.
func (p *program) site(ctx context.Context, req *request) (*site, error) {
	key, err := p.masterKeyPath()
	if err != nil {
		return nil, err
	}
	value := req.args.values
	files, err := config.Locate(config.Flags{Config: value["config"], Directory: value["directory"]}, p.env)
	if err != nil {
		return nil, err
	}
	c, err := config.Parse(files.Config)
	if err != nil {
		return nil, err
	}
	if c.Main.BaseDir == "" {
		return nil, fmt.Errorf("%s: base_dir is not set", files.Config)
	}
	s := &site{key: key, base: c.Main.BaseDir}
	if s.servers, err = p.repositories(ctx, c.Main.BaseDir, value["server"]); err != nil {
		return nil, err
	}
	accounts := []string{files.Users, files.Admins}
	if given := value["file"]; given != "" {
		accounts = append(accounts, given)
	}
	for _, file := range accounts {
		if _, err := os.Stat(file); err == nil {
			s.accounts = append(s.accounts, file)
		} else if !errors.Is(err, fs.ErrNotExist) || file == value["file"] {
			return nil, err
		}
	}
	return s, nil
}

// repositories opens the repositories below base that have keys, or only that of one server.
func (p *program) repositories(ctx context.Context, base, server string) ([]*repo.Repository, error) {
	entries, err := os.ReadDir(base)
	if err != nil {
		return nil, fmt.Errorf("%w: check base_dir, and that its file system is mounted", err)
	}
	var list []*repo.Repository
	for _, e := range entries {
		if !e.IsDir() || server != "" && e.Name() != server {
			continue
		}
		if _, err := os.Stat(filepath.Join(base, e.Name(), "format")); err != nil {
			continue // no repository of ours
		}
		r, err := repo.Open(p.fs, base, e.Name())
		if err != nil {
			return nil, err
		}
		sealed, err := r.HasKeys(ctx)
		if err != nil {
			return nil, err
		}
		if sealed {
			list = append(list, r)
		}
	}
	if server != "" && len(list) == 0 {
		return nil, fmt.Errorf("server %q: no repository with keys below %s", server, base)
	}
	return list, nil
}
