package mgmt

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Limits of logins that fail, per address.
const (
	failureMemory   = 10 * time.Minute // after the last one all is forgotten
	firstDelay      = 100 * time.Millisecond
	longestDelay    = 5 * time.Second
	maxFailures     = 20 // then an address is refused until it is forgotten
	maxLogins       = 8  // of one address at once
	rememberedHosts = 10_000
	forgottenAtOnce = rememberedHosts / 10
)

// A BlockedError reports an address whose logins failed too often.
type BlockedError struct{ Address string }

func (e *BlockedError) Error() string {
	return fmt.Sprintf("logins from %s are refused for %s: too many failed, or too many are under way", e.Address, failureMemory)
}

// failures remembers who failed to log in. Each failure makes the next attempt of the
// address wait longer. Its size is bounded: of very many addresses some are forgotten early.
type failures struct {
	mu    sync.Mutex // guards hosts and what is in them
	hosts map[string]*host
}

type host struct {
	failed int
	last   time.Time
	active int
}

func newFailures() *failures { return &failures{hosts: map[string]*host{}} }

// enter waits as long as an address has to, and counts its login as under way until
// release is called.
func (f *failures) enter(ctx context.Context, address string) (release func(), err error) {
	f.mu.Lock()
	h := f.host(address)
	if h.failed >= maxFailures || h.active >= maxLogins {
		f.mu.Unlock()
		return nil, &BlockedError{address}
	}
	h.active++
	delay := h.delay()
	f.mu.Unlock()
	release = func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		h.active--
	}
	if delay == 0 {
		return release, nil
	}
	t := time.NewTimer(delay)
	defer t.Stop()
	select {
	case <-t.C:
		return release, nil
	case <-ctx.Done():
		release()
		return nil, context.Cause(ctx)
	}
}

func (h *host) delay() time.Duration {
	if h.failed == 0 {
		return 0
	}
	return min(firstDelay<<min(h.failed-1, 10), longestDelay)
}

// host returns what is known of an address. The caller holds the lock.
func (f *failures) host(address string) *host {
	h := f.hosts[address]
	if h == nil {
		f.shrink()
		h = &host{last: time.Now()}
		f.hosts[address] = h
	}
	if time.Since(h.last) > failureMemory {
		h.failed, h.last = 0, time.Now()
	}
	return h
}

// shrink makes room: for those whose time is over, and else for any that are idle.
func (f *failures) shrink() {
	if len(f.hosts) < rememberedHosts {
		return
	}
	idle := 0
	for address, h := range f.hosts {
		if h.active > 0 {
			continue
		}
		if idle++; time.Since(h.last) > failureMemory || idle <= forgottenAtOnce {
			delete(f.hosts, address)
		}
	}
}

// add counts a failure.
func (f *failures) add(address string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	h := f.host(address)
	h.failed++
	h.last = time.Now()
}

// forget forgets the failures of an address that has succeeded.
func (f *failures) forget(address string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.host(address).failed = 0
}
