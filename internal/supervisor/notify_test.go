package supervisor

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"
)

// manager listens as systemd does.
func manager(t *testing.T, name string) *net.UnixConn {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func hear(t *testing.T, conn *net.UnixConn) string {
	t.Helper()
	var b [512]byte
	n, err := conn.Read(b[:])
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

func environ(values map[string]string) func(string) (string, bool) {
	return func(key string) (string, bool) { v, ok := values[key]; return v, ok }
}

func TestSystemdIsToldWhatHappens(t *testing.T) {
	t.Parallel()
	for _, name := range []string{filepath.Join(t.TempDir(), "notify"), "@pgmoneta-test-" + strconv.Itoa(os.Getpid())} {
		systemd := manager(t, name)
		n, err := NewNotifier(environ(map[string]string{"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "20000", "WATCHDOG_PID": strconv.Itoa(os.Getpid())}))
		if err != nil {
			t.Fatal(err)
		}
		t.Run(name[:1], func(t *testing.T) {
			sv, _ := idle(t, "", func(o *Options) { o.Notifier = n })
			if got := hear(t, systemd); got != "READY=1" {
				t.Errorf("systemd hears %q first", got)
			}
			for range 3 {
				if got := hear(t, systemd); got != "WATCHDOG=1" {
					t.Errorf("systemd hears %q", got)
				}
			}
			sv.stop(errShutdown)
			got := hear(t, systemd)
			for got == "WATCHDOG=1" {
				got = hear(t, systemd)
			}
			if got != "STOPPING=1" {
				t.Errorf("systemd hears %q at the end", got)
			}
		})
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A supervisor that is stuck gives no sign of life.
func TestWatchdogIsSilentWhenStuck(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "notify")
	systemd := manager(t, name)
	n, err := NewNotifier(environ(map[string]string{"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "2000"}))
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		n.keepAlive(ctx, func(context.Context) bool {
			select {
			case asked <- struct{}{}:
			case <-ctx.Done():
			}
			return false
		})
	})
	for range 3 {
		<-asked
	}
	cancel()
	wg.Wait()
	if err := n.tell("LAST=1"); err != nil {
		t.Fatal(err)
	}
	if got := hear(t, systemd); got != "LAST=1" {
		t.Errorf("systemd hears %q", got)
	}
	_ = n.Close()
}

func TestNotifierReadsItsEnvironment(t *testing.T) {
	t.Parallel()
	if n, err := NewNotifier(environ(nil)); n != nil || err != nil {
		t.Errorf("without a socket: %v, %v", n, err)
	}
	var nobody *Notifier
	if err := nobody.tell("READY=1"); err != nil {
		t.Error(err)
	}
	nobody.keepAlive(context.Background(), nil)
	if _, err := NewNotifier(environ(map[string]string{"NOTIFY_SOCKET": filepath.Join(t.TempDir(), "none")})); err == nil {
		t.Error("a socket that is not there was accepted")
	}
	name := filepath.Join(t.TempDir(), "notify")
	manager(t, name)
	for usec, want := range map[string]time.Duration{"30000000": 30 * time.Second, "0": -1, "-5": -1, "x": -1, "99999999999999": -1} {
		n, err := NewNotifier(environ(map[string]string{"NOTIFY_SOCKET": name, "WATCHDOG_USEC": usec}))
		if want < 0 {
			if err == nil {
				t.Errorf("WATCHDOG_USEC=%s was accepted", usec)
			}
			continue
		}
		if err != nil || n.watchdog != want {
			t.Errorf("WATCHDOG_USEC=%s: %v, %v", usec, n, err)
			continue
		}
		_ = n.Close()
	}
	n, err := NewNotifier(environ(map[string]string{"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "5", "WATCHDOG_PID": "1"}))
	if err != nil || n.watchdog != 0 {
		t.Errorf("the watchdog of another process: %v, %v", n, err)
	}
	_ = n.Close()
}
