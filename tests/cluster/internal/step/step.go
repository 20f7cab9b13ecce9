// Package step prints what the program does and how long it takes.
// It is not a log: each line is for the person who waits.
package step

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// Printer writes one line a step, with the seconds that it took.
type Printer struct {
	mutex sync.Mutex
	out   io.Writer
	start time.Time
}

// NewPrinter starts the clock that Total reads.
func NewPrinter(out io.Writer) *Printer {
	return &Printer{out: out, start: time.Now()}
}

// Note prints a line without a duration.
func (p *Printer) Note(format string, arguments ...any) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	fmt.Fprintf(p.out, "cluster: "+format+"\n", arguments...)
}

// Do runs action and prints its name with the seconds that it took. When the
// action takes long, a line every 15 seconds says that it still runs.
func (p *Printer) Do(name string, action func() error) error {
	began := time.Now()
	finished := make(chan struct{})
	var reporter sync.WaitGroup
	reporter.Go(func() {
		ticker := time.NewTicker(15 * time.Second)
		defer ticker.Stop()
		for {
			select {
			case <-finished:
				return
			case <-ticker.C:
				p.Note("%6.0fs ... %s", time.Since(began).Seconds(), name)
			}
		}
	})
	err := action()
	close(finished)
	reporter.Wait()
	outcome := name
	if err != nil {
		outcome += " (failed)"
	}
	p.Note("%6.1fs %s", time.Since(began).Seconds(), outcome)
	return err
}

// Total is the time since the printer was made.
func (p *Printer) Total() time.Duration {
	return time.Since(p.start)
}
