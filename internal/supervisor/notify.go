package supervisor

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"
)

// A Notifier tells systemd how the daemon is, in the protocol of sd_notify(3). A nil Notifier tells nobody.
type Notifier struct {
	conn     *net.UnixConn
	watchdog time.Duration // how long systemd waits for a sign of life, 0 for ever
}

// NewNotifier returns what the environment of a service asks for, nil when nobody listens. The caller closes it.
func NewNotifier(env func(string) (string, bool)) (*Notifier, error) {
	name, ok := env("NOTIFY_SOCKET")
	if !ok || name == "" {
		return nil, nil
	}
	// A name that begins with "@" is abstract; package net knows that too.
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("NOTIFY_SOCKET: %w", err)
	}
	n := &Notifier{conn: conn}
	if n.watchdog, err = watchdog(env); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return n, nil
}

// watchdog reads how often systemd wants to hear from this process.
func watchdog(env func(string) (string, bool)) (time.Duration, error) {
	text, ok := env("WATCHDOG_USEC")
	if pid, is := env("WATCHDOG_PID"); !ok || is && pid != strconv.Itoa(os.Getpid()) {
		return 0, nil // it is about another process
	}
	usec, err := strconv.ParseInt(text, 10, 64)
	if err != nil || usec <= 0 || usec > int64(24*time.Hour/time.Microsecond) {
		return 0, fmt.Errorf("WATCHDOG_USEC=%q: want microseconds, at most a day", text)
	}
	return time.Duration(usec) * time.Microsecond, nil
}

// Close closes the connection.
func (n *Notifier) Close() error {
	if n == nil {
		return nil
	}
	return n.conn.Close()
}

// tell sends assignments, one in a line.
func (n *Notifier) tell(state string) error {
	if n == nil {
		return nil
	}
	_, err := n.conn.Write([]byte(state))
	return err
}

// keepAlive gives a sign of life twice as often as is wanted, as long as alive says so, until ctx ends.
func (n *Notifier) keepAlive(ctx context.Context, alive func(context.Context) bool) {
	if n == nil || n.watchdog == 0 {
		return
	}
	t := time.NewTicker(n.watchdog / 2)
	defer t.Stop()
	for {
		if alive(ctx) {
			_ = n.tell("WATCHDOG=1") // a service manager that is gone wants nothing
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}
