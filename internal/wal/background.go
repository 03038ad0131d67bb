package wal

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// A background runs functions on a thread of the lowest priority.
type background struct {
	work chan func()
	done chan struct{}
}

func startBackground() *background {
	b := &background{work: make(chan func()), done: make(chan struct{})}
	go b.run()
	return b
}

func (b *background) run() {
	// Never unlocked: the thread ends with the goroutine, because nobody without
	// privileges may raise a priority again.
	runtime.LockOSThread()
	_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), 19) // of this thread alone; without it the work is only less polite
	for work := range b.work {
		work()
		b.done <- struct{}{}
	}
	close(b.done)
}

// do runs work and waits for it.
func (b *background) do(work func()) {
	b.work <- work
	<-b.done
}

// close ends the thread and waits for it.
func (b *background) close() {
	close(b.work)
	<-b.done
}
