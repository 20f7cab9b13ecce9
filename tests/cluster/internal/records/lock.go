package records

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"atomix.io/cluster/internal/instance"
)

// Lock keeps other runs away from the cluster of that name until it is released
// or this process ends. The name "" stands for what all clusters share.
type Lock struct {
	file *os.File
	path string
}

// Acquire waits for the lock.
func Acquire(name string) (*Lock, error) {
	return acquireIn(instance.RecordsRoot, name)
}

func acquireIn(folder, name string) (*Lock, error) {
	path := filepath.Join(folder, "."+name+".lock")
	for {
		lock, err := tryFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // The last cluster's removal took the folder away just now.
		}
		if err != nil {
			return nil, err
		}
		if lock.isCurrent() {
			return lock, nil
		}
		// Its last holder discarded the file while this run waited for it.
		lock.Release()
	}
}

func tryFile(path string) (*Lock, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make the folder of records: %w", err)
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX)
		if err == nil {
			return &Lock{file: file, path: path}, nil
		}
		if !errors.Is(err, syscall.EINTR) {
			file.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
	}
}

func (l *Lock) isCurrent() bool {
	held, err := l.file.Stat()
	if err != nil {
		return false
	}
	present, err := os.Stat(l.path)
	return err == nil && os.SameFile(held, present)
}

// Release lets others in.
func (l *Lock) Release() { l.file.Close() }

// Discard removes the lock's file, too; the lock is still held until Release.
func (l *Lock) Discard() { _ = os.Remove(l.path) }
