package mgmt

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// SocketName is the name of the daemon's socket in unix_socket_dir.
const SocketName = ".s.pgmoneta"

// An InUseError reports a socket another process answers on.
type InUseError struct {
	Path string
}

func (e *InUseError) Error() string {
	return fmt.Sprintf("%s: another daemon answers on this socket: stop it or choose another unix_socket_dir", e.Path)
}

// Listen creates the Unix socket path, readable and writable by its owner only: whoever reaches it may run
// every command. The socket appears under its name with these rights already in place, whatever the umask.
//
// A socket nobody answers on is replaced. Anything else at path is left alone and an error.
// Two daemons that start at the same moment are not told apart here; the lock on the repository does that.
//
// Closing the listener removes path unless somebody else's socket is there by then.
func Listen(path string) (net.Listener, error) {
	if err := checkStale(path); err != nil {
		return nil, err
	}

	dir, err := os.MkdirTemp(filepath.Dir(path), ".pgm")
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	defer func() { _ = os.RemoveAll(dir) }()

	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "s"), Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	ln.SetUnlinkOnClose(false)
	s, err := publish(ln, filepath.Join(dir, "s"), path)
	if err != nil {
		_ = ln.Close()
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return s, nil
}

// publish gives the bound socket its rights and then its name.
func publish(ln net.Listener, bound, path string) (*socket, error) {
	if err := os.Chmod(bound, 0o600); err != nil {
		return nil, err
	}
	info, err := os.Lstat(bound)
	if err != nil {
		return nil, err
	}
	if err := os.Rename(bound, path); err != nil {
		return nil, err
	}
	return &socket{Listener: ln, path: path, info: info}, nil
}

// checkStale returns nil when path does not exist or is a socket that nobody listens on.
func checkStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("listen on %s: %w", path, err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("listen on %s: exists and is not a socket", path)
	}

	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		_ = conn.Close()
		return &InUseError{Path: path}
	}
	// EAGAIN means a full backlog, so somebody listens; EACCES that we cannot know.
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fmt.Errorf("listen on %s: is the socket there in use: %w", path, err)
}

// A socket is a listener that takes its name away with it.
type socket struct {
	net.Listener
	path string
	info os.FileInfo // of the socket we created
	once sync.Once
}

func (s *socket) Close() error {
	s.once.Do(s.remove)
	return s.Listener.Close()
}

func (s *socket) remove() {
	info, err := os.Lstat(s.path)
	if err != nil || !os.SameFile(info, s.info) {
		return
	}
	_ = os.Remove(s.path)
}

// Addr returns the name clients use, not the one the socket was bound under.
func (s *socket) Addr() net.Addr { return &net.UnixAddr{Name: s.path, Net: "unix"} }
