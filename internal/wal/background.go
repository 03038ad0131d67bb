package wal

import (
	"os"
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
	runtime.LockOSThread()
	if unix.Gettid() == os.Getpid() {
		// The main thread's priority is what ps shows of the process. It is held
		// until another one is found.
		found := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			close(found)
			b.serve()
		}()
		<-found
		runtime.UnlockOSThread()
		return
	}
	b.serve()
}

// serve runs work on a locked thread. It is never unlocked and ends with the
// goroutine, because nobody without privileges may raise a priority again.
func (b *background) serve() {
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
