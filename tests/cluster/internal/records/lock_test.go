package records

import (
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

// Holders discard the file at random points while others wait for it; if two of
// them ever held the lock at once, one would see the other inside.
func TestLockLetsOneInAtATimeAlsoWhenItsFileIsDiscarded(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "records")
	const runs, rounds = 8, 50
	var inside, total atomic.Int32
	var group sync.WaitGroup
	for run := range runs {
		group.Go(func() {
			for round := range rounds {
				lock, err := acquireIn(folder, "name")
				if err != nil {
					t.Error(err)
					return
				}
				if holders := inside.Add(1); holders != 1 {
					t.Errorf("%d runs hold the lock", holders)
				}
				runtime.Gosched() // Gives the others their chance to break in.
				total.Add(1)
				inside.Add(-1)
				if (run+round)%3 == 0 {
					lock.Discard()
				}
				lock.Release()
			}
		})
	}
	group.Wait()
	if total.Load() != runs*rounds {
		t.Fatalf("counted %d instead of %d", total.Load(), runs*rounds)
	}
}

func TestDiscardedLockLeavesNoFile(t *testing.T) {
	folder := t.TempDir()
	lock, err := acquireIn(folder, "name")
	if err != nil {
		t.Fatal(err)
	}
	lock.Discard()
	lock.Release()
	entries, err := os.ReadDir(folder)
	if err != nil || len(entries) != 0 {
		t.Fatalf("left %v, %v", entries, err)
	}
}
