package records

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"atomix.io/cluster/internal/instance"
)

const (
	instanceFile    = "instance.json"
	readyFile       = "ready"
	processesFolder = "processes"
)

// BootID is the kernel's id of this boot.
func BootID() (string, error) {
	content, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read the boot id: %w", err)
	}
	return strings.TrimSpace(string(content)), nil
}

// WriteInstance records the cluster; it comes before anything is made.
func WriteInstance(cluster instance.Instance) error {
	if err := os.MkdirAll(filepath.Join(cluster.RecordsFolder(), processesFolder), 0o755); err != nil {
		return err
	}
	return writeJSON(filepath.Join(cluster.RecordsFolder(), instanceFile), cluster)
}

// ReadInstance finds a cluster by name; found is false when there is no record.
func ReadInstance(name string) (cluster instance.Instance, found bool, err error) {
	path := filepath.Join(instance.RecordsRoot, name, instanceFile)
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return instance.Instance{}, false, nil
	}
	if err != nil {
		return instance.Instance{}, false, err
	}
	if err := json.Unmarshal(content, &cluster); err != nil {
		return instance.Instance{}, false, fmt.Errorf("read %s: %w; remove the file if it is damaged", path, err)
	}
	return cluster, true, nil
}

// AllInstances lists every recorded cluster of this machine by name.
func AllInstances() ([]instance.Instance, error) {
	paths, err := filepath.Glob(filepath.Join(instance.RecordsRoot, "*", instanceFile))
	if err != nil {
		return nil, err
	}
	sort.Strings(paths)
	var clusters []instance.Instance
	for _, path := range paths {
		cluster, found, err := ReadInstance(filepath.Base(filepath.Dir(path)))
		if err != nil {
			return nil, err
		}
		if found {
			clusters = append(clusters, cluster)
		}
	}
	return clusters, nil
}

// WriteProcess records a process of the cluster.
func WriteProcess(cluster instance.Instance, process Process) error {
	return writeJSON(filepath.Join(cluster.RecordsFolder(), processesFolder, process.Name+".json"), process)
}

// RemoveProcess forgets a process that was ended on purpose.
func RemoveProcess(cluster instance.Instance, process Process) error {
	path := filepath.Join(cluster.RecordsFolder(), processesFolder, process.Name+".json")
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Processes lists the recorded processes of the cluster by name. Those of an
// earlier boot are gone for certain and are left out.
func Processes(cluster instance.Instance) ([]Process, error) {
	boot, err := BootID()
	if err != nil {
		return nil, err
	}
	if cluster.Boot != boot {
		return nil, nil
	}
	paths, err := filepath.Glob(filepath.Join(cluster.RecordsFolder(), processesFolder, "*.json"))
	if err != nil {
		return nil, err
	}
	sort.Strings(paths)
	var processes []Process
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		var process Process
		if err := json.Unmarshal(content, &process); err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		processes = append(processes, process)
	}
	return processes, nil
}

// MarkReady says that the start went through to its end.
func MarkReady(cluster instance.Instance) error {
	return os.WriteFile(filepath.Join(cluster.RecordsFolder(), readyFile), nil, 0o644)
}

// IsReady says whether a start went through to its end.
func IsReady(cluster instance.Instance) bool {
	_, err := os.Stat(filepath.Join(cluster.RecordsFolder(), readyFile))
	return err == nil
}

func writeJSON(path string, value any) error {
	content, err := json.Marshal(value)
	if err != nil {
		return err
	}
	temporary := path + ".new"
	if err := os.WriteFile(temporary, content, 0o644); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}
