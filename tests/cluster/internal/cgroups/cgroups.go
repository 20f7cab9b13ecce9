// Package cgroups makes, joins, empties and removes the cgroups of a cluster,
// on machines with cgroup v1, v2 and both. Pods' cgroups below a node's are made
// by the kubelet and runc; they are only removed here.
package cgroups

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

type hierarchy struct {
	mount       string
	isUnified   bool
	controllers []string
}

// Make creates the cgroup in every hierarchy, ready to hold processes.
func Make(path string) error {
	hierarchies, err := mounted()
	if err != nil {
		return err
	}
	for _, hierarchy := range hierarchies {
		parent := hierarchy.mount
		for element := range strings.SplitSeq(path, "/") {
			if err := hierarchy.prepareParent(parent); err != nil {
				return err
			}
			child := filepath.Join(parent, element)
			if err := os.Mkdir(child, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("make cgroup: %w", err)
			}
			if err := hierarchy.inherit(parent, child); err != nil {
				return err
			}
			parent = child
		}
	}
	return nil
}

// Join moves this process, and so all that it starts later, into the cgroup.
func Join(path string) error {
	hierarchies, err := mounted()
	if err != nil {
		return err
	}
	for _, hierarchy := range hierarchies {
		file := filepath.Join(hierarchy.mount, path, "cgroup.procs")
		if err := os.WriteFile(file, []byte(strconv.Itoa(os.Getpid())), 0); err != nil {
			return fmt.Errorf("join cgroup: %w", err)
		}
	}
	return nil
}

// Processes lists the ids of all processes in the cgroup and below it.
func Processes(path string) ([]int, error) {
	hierarchies, err := mounted()
	if err != nil {
		return nil, err
	}
	seen := map[int]bool{}
	for _, hierarchy := range hierarchies {
		err := walk(filepath.Join(hierarchy.mount, path), func(folder string) error {
			content, err := os.ReadFile(filepath.Join(folder, "cgroup.procs"))
			if err != nil {
				return ignoreGone(err)
			}
			for field := range strings.FieldsSeq(string(content)) {
				id, err := strconv.Atoi(field)
				if err != nil {
					return fmt.Errorf("process id %q in %s: %w", field, folder, err)
				}
				seen[id] = true
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	ids := make([]int, 0, len(seen))
	for id := range seen {
		ids = append(ids, id)
	}
	return ids, nil
}

// Remove deletes the cgroup and all below it; no process may be left in it.
func Remove(path string) error {
	hierarchies, err := mounted()
	if err != nil {
		return err
	}
	for _, hierarchy := range hierarchies {
		var folders []string
		err := walk(filepath.Join(hierarchy.mount, path), func(folder string) error {
			folders = append(folders, folder)
			return nil
		})
		if err != nil {
			return err
		}
		for index := len(folders) - 1; index >= 0; index-- {
			if err := syscall.Rmdir(folders[index]); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("remove cgroup %s: %w", folders[index], err)
			}
		}
		removeIfEmpty(filepath.Join(hierarchy.mount, filepath.Dir(path)), hierarchy.mount)
	}
	return nil
}

// prepareParent lets children of a v2 cgroup use every controller that it has.
// Where v1 is mounted as well, v2 has no controllers and nothing happens.
func (h hierarchy) prepareParent(folder string) error {
	if !h.isUnified {
		return nil
	}
	content, err := os.ReadFile(filepath.Join(folder, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("read controllers: %w", err)
	}
	for controller := range strings.FieldsSeq(string(content)) {
		file := filepath.Join(folder, "cgroup.subtree_control")
		err := os.WriteFile(file, []byte("+"+controller), 0)
		if err != nil && isNeeded(controller) {
			return fmt.Errorf("enable controller %s in %s: %w", controller, folder, err)
		}
	}
	return nil
}

// isNeeded says whether kubelet and runc fail without the controller. Some of the
// others cannot be handed down on every machine.
func isNeeded(controller string) bool {
	return slices.Contains([]string{"cpu", "cpuset", "memory", "pids"}, controller)
}

// inherit copies the processors and memory nodes of a v1 cpuset, which start empty.
func (h hierarchy) inherit(parent, child string) error {
	for _, controller := range h.controllers {
		if controller != "cpuset" {
			continue
		}
		for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
			content, err := os.ReadFile(filepath.Join(parent, name))
			if err != nil {
				return fmt.Errorf("read cpuset: %w", err)
			}
			if err := os.WriteFile(filepath.Join(child, name), content, 0); err != nil {
				return fmt.Errorf("write cpuset: %w", err)
			}
		}
	}
	return nil
}

func mounted() ([]hierarchy, error) {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var hierarchies []hierarchy
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if found, ok := parseMount(lines.Text()); ok {
			hierarchies = append(hierarchies, found)
		}
	}
	if len(hierarchies) == 0 {
		return nil, errors.New("no cgroup hierarchy is mounted on this machine")
	}
	return hierarchies, lines.Err()
}

// parseMount reads a line of proc(5) mountinfo if it is about cgroups.
func parseMount(line string) (hierarchy, bool) {
	before, after, found := strings.Cut(line, " - ")
	left, right := strings.Fields(before), strings.Fields(after)
	if !found || len(left) < 5 || len(right) < 3 {
		return hierarchy{}, false
	}
	const mountPoint, kind, superOptions = 4, 0, 2
	switch right[kind] {
	case "cgroup2":
		return hierarchy{mount: left[mountPoint], isUnified: true}, true
	case "cgroup":
		return hierarchy{mount: left[mountPoint], controllers: strings.Split(right[superOptions], ",")}, true
	default:
		return hierarchy{}, false
	}
}

func walk(root string, visit func(folder string) error) error {
	return filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return ignoreGone(err)
		}
		if !entry.IsDir() {
			return nil
		}
		return visit(path)
	})
}

func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV) {
		return nil
	}
	return err
}

// removeIfEmpty removes the shared parent once the last cluster has left it.
func removeIfEmpty(folder, mount string) {
	if folder != mount {
		_ = syscall.Rmdir(folder)
	}
}

// IsMember says whether the process is in the cgroup or below it.
func IsMember(id int, path string) bool {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", id))
	if err != nil {
		return false
	}
	return mentions(string(content), path)
}

// mentions looks for the cgroup in proc(5) cgroup: HIERARCHY:CONTROLLERS:PATH.
func mentions(content, path string) bool {
	for line := range strings.Lines(content) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) < 3 {
			continue
		}
		member := strings.TrimPrefix(fields[2], "/")
		if member == path || strings.HasPrefix(member, path+"/") {
			return true
		}
	}
	return false
}
