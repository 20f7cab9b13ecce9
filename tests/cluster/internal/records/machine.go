package records

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"atomix.io/cluster/internal/instance"
)

const machineFile = "machine.json"

// machineState is what clusters change for the whole machine, as it was before
// the first of them.
type machineState struct {
	// KernelSettings are values by file.
	KernelSettings map[string]string `json:"kernelSettings"`
	// AbsentFolders are shared folders that did not exist.
	AbsentFolders []string `json:"absentFolders"`
}

// kernelSettings are those that a kubelet sets for the whole machine.
func kernelSettings() []string {
	return []string{
		"/proc/sys/vm/overcommit_memory",
		"/proc/sys/vm/panic_on_oom",
		"/proc/sys/kernel/panic",
		"/proc/sys/kernel/panic_on_oops",
		"/proc/sys/kernel/keys/root_maxkeys",
		"/proc/sys/kernel/keys/root_maxbytes",
	}
}

// sharedFolders are those that the clusters' programs use whatever they are
// told, an inner folder before the outer one.
func sharedFolders() []string {
	return []string{
		"/run/netns",
		"/run/containerd/s", "/run/containerd",
		"/var/lib/cni/results", "/var/lib/cni",
		"/var/lib/kubelet/device-plugins", "/var/lib/kubelet",
		"/var/log/containers",
		"/run/mount",
	}
}

// SaveMachine keeps the machine's own state unless it is kept already.
func SaveMachine() error {
	path := filepath.Join(instance.RecordsRoot, machineFile)
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	state := machineState{KernelSettings: map[string]string{}}
	for _, setting := range kernelSettings() {
		content, err := os.ReadFile(setting)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		state.KernelSettings[setting] = string(content)
	}
	for _, folder := range sharedFolders() {
		if _, err := os.Stat(folder); errors.Is(err, fs.ErrNotExist) {
			state.AbsentFolders = append(state.AbsentFolders, folder)
		}
	}
	return writeJSON(path, state)
}

// RestoreMachine puts the kept state back and forgets it. Folders that others
// have put something into meanwhile stay.
func RestoreMachine() error {
	path := filepath.Join(instance.RecordsRoot, machineFile)
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var state machineState
	if err := json.Unmarshal(content, &state); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	for setting, value := range state.KernelSettings {
		if err := os.WriteFile(setting, []byte(value), 0o644); err != nil {
			return fmt.Errorf("restore %s: %w", setting, err)
		}
	}
	for _, folder := range state.AbsentFolders {
		removeSharedFolder(folder)
	}
	return os.Remove(path)
}

// removeSharedFolder removes the folder if only our traces are in it.
func removeSharedFolder(folder string) {
	switch folder {
	case "/var/lib/kubelet/device-plugins":
		_ = os.Remove(filepath.Join(folder, "kubelet.sock"))
	case "/run/mount":
		_ = os.Remove(filepath.Join(folder, "utab.lock"))
		if info, err := os.Stat(filepath.Join(folder, "utab")); err == nil && info.Size() == 0 {
			_ = os.Remove(filepath.Join(folder, "utab"))
		}
	case "/run/netns":
		// `ip netns` mounts the folder over itself, once for each first use.
		if entries, err := os.ReadDir(folder); err == nil && len(entries) == 0 {
			_ = syscall.Unmount(folder, syscall.MNT_DETACH)
		}
	}
	_ = syscall.Rmdir(folder)
}
