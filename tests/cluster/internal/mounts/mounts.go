// Package mounts takes away the mounts that kubelets and containerd leave below
// a cluster's folders.
package mounts

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// UnmountBelow detaches every mount below the folder, the last made first. When
// it returns without an error there is none left, so the folder may be deleted
// without reaching into what was mounted.
func UnmountBelow(folder string) error {
	const rounds = 5 // One mount may hide another that is found only later.
	for range rounds {
		points, err := below(folder)
		if err != nil {
			return err
		}
		if len(points) == 0 {
			return nil
		}
		for index := len(points) - 1; index >= 0; index-- {
			err := syscall.Unmount(points[index], syscall.MNT_DETACH)
			gone := errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOENT)
			if err != nil && !gone {
				return fmt.Errorf("unmount %s: %w", points[index], err)
			}
		}
	}
	return fmt.Errorf("mounts below %s come back after %d rounds of unmounting", folder, rounds)
}

func below(folder string) ([]string, error) {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var points []string
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if point, ok := mountPoint(lines.Text()); ok && strings.HasPrefix(point, folder+"/") {
			points = append(points, point)
		}
	}
	return points, lines.Err()
}

// mountPoint reads the fifth field of proc(5) mountinfo, in which blanks are
// written as octal numbers.
func mountPoint(line string) (string, bool) {
	fields := strings.Fields(line)
	if len(fields) < 5 {
		return "", false
	}
	return unescape(fields[4]), true
}

func unescape(text string) string {
	var result strings.Builder
	for len(text) > 0 {
		if text[0] == '\\' && len(text) >= 4 {
			if code, err := strconv.ParseUint(text[1:4], 8, 8); err == nil {
				result.WriteByte(byte(code))
				text = text[4:]
				continue
			}
		}
		result.WriteByte(text[0])
		text = text[1:]
	}
	return result.String()
}
