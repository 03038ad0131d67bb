package supervisor

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/config"
)

// A certificate is the TLS configuration of a listener, read from its files again
// when they have changed. It is safe for concurrent use.
type certificate struct {
	files config.TLSFiles
	warn  func(msg string, args ...any)

	mu     sync.Mutex
	config *tls.Config
	read   [3]time.Time // when the files that config was made of had been changed
}

// loadCertificate reads the files, which have to belong to us or to root, with a key
// that nobody else may read.
func loadCertificate(files config.TLSFiles, warn func(string, ...any)) (*certificate, error) {
	c := &certificate{files: files, warn: warn}
	if files.Cert == "" || files.Key == "" {
		return nil, errors.New("TLS needs a certificate and its key: set both files")
	}
	var err error
	c.read, err = c.changed()
	if err == nil {
		c.config, err = c.load()
	}
	return c, err
}

// Config returns the configuration of a connection. Files that make no sense any more
// are reported, and what was read before stays.
func (c *certificate) Config() (*tls.Config, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	changed, err := c.changed()
	if err == nil && changed == c.read {
		return c.config, nil
	}
	next := c.config
	if err == nil {
		next, err = c.load()
	}
	if err != nil {
		c.warn("changed TLS files are not used", "err", err)
		c.read = changed // and not reported again
		return c.config, nil
	}
	c.config, c.read = next, changed
	return c.config, nil
}

// changed returns when the files were changed, after a look at their owners and modes.
func (c *certificate) changed() (at [3]time.Time, err error) {
	for i, name := range []string{c.files.Cert, c.files.Key, c.files.CA} {
		if name == "" {
			continue
		}
		info, err := os.Stat(name)
		if err != nil {
			return at, err
		}
		if err := checkTLSFile(name, info, name == c.files.Key); err != nil {
			return at, err
		}
		at[i] = info.ModTime()
	}
	return at, nil
}

func checkTLSFile(name string, info fs.FileInfo, key bool) error {
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s: not a regular file", name)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("%s: its owner is not known", name)
	}
	root, ours := st.Uid == 0, int(st.Uid) == os.Geteuid()
	switch mode := info.Mode().Perm(); {
	case !root && !ours:
		return fmt.Errorf("%s: belongs to user %d: it must belong to us or to root", name, st.Uid)
	case key && ours && !root && mode&0o077 != 0, key && root && mode&^fs.FileMode(0o640) != 0:
		return fmt.Errorf("%s: mode %04o lets others read the key: 0600, or 0640 if it belongs to root", name, mode)
	}
	return nil
}

// notAfter returns when the certificate expires.
func (c *certificate) notAfter() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if leaf := c.config.Certificates[0].Leaf; leaf != nil {
		return leaf.NotAfter
	}
	return time.Time{}
}

func (c *certificate) load() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(c.files.Cert, c.files.Key)
	if err != nil {
		return nil, fmt.Errorf("%s and %s: %w", c.files.Cert, c.files.Key, err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	if c.files.CA == "" {
		return config, nil
	}
	content, err := os.ReadFile(c.files.CA)
	if err != nil {
		return nil, err
	}
	config.ClientCAs, config.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
	if !config.ClientCAs.AppendCertsFromPEM(content) {
		return nil, fmt.Errorf("%s: no certificate in it", c.files.CA)
	}
	return config, nil
}

// readCertificates reads those again that were changed, although nobody connects.
func (l *listeners) readCertificates() {
	for _, c := range l.allCertificates() {
		_, _ = c.Config() // reports a file that makes no sense by itself
	}
}

// allCertificates returns what the listeners show, by their names.
func (l *listeners) allCertificates() map[string]*certificate {
	l.held.Lock()
	defer l.held.Unlock()
	return maps.Clone(l.certificates)
}
