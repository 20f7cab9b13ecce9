// Package process starts the cluster's long-running programs: each in its own
// session, in the cluster's cgroup, in a network namespace, with a log file and
// a record.
package process

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"atomix.io/cluster/internal/cgroups"
	"atomix.io/cluster/internal/instance"
	"atomix.io/cluster/internal/records"
)

// EnterCommand is the hidden command by which this program starts another one.
const EnterCommand = "enter"

// Spec is what to start.
type Spec struct {
	// Name is the process's name in records and logs.
	Name string
	// Namespace is the network namespace to run in.
	Namespace string
	Program   string
	Arguments []string
	// Environment is added to this process's own.
	Environment []string
}

// Start runs the program and records it. The program outlives this one.
func Start(cluster instance.Instance, spec Spec) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(LogFile(cluster, spec.Name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	arguments := []string{EnterCommand, cluster.ProcessCgroup(), spec.Namespace, spec.Program}
	command := exec.Command(self, append(arguments, spec.Arguments...)...)
	command.Env = append(os.Environ(), spec.Environment...)
	command.Stdout = log
	command.Stderr = log
	command.Dir = "/"
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := command.Start(); err != nil {
		return fmt.Errorf("start %s: %w", spec.Name, err)
	}
	recorded, err := records.Identify(spec.Name, command.Process.Pid)
	if err != nil {
		return err
	}
	// Reaps the child if it ends while this program still waits for the cluster.
	go func() { _ = command.Wait() }()
	return records.WriteProcess(cluster, recorded)
}

// Enter is the started child's first act: it joins the cgroup, then becomes the
// program inside the network namespace, under the same process id.
func Enter(arguments []string) error {
	if len(arguments) < 3 {
		return fmt.Errorf("%s needs a cgroup, a namespace and a program", EnterCommand)
	}
	cgroup, namespace, program := arguments[0], arguments[1], arguments[2:]
	if err := cgroups.Join(cgroup); err != nil {
		return err
	}
	return Exec(InNamespace(namespace, program...))
}

// InNamespace is the command line that runs a program in a network namespace.
// Only the network changes: mounts stay those of the machine.
func InNamespace(namespace string, program ...string) []string {
	return append([]string{"nsenter", "--net=" + filepath.Join("/run/netns", namespace), "--"}, program...)
}

// Exec replaces this process.
func Exec(commandLine []string) error {
	path, err := exec.LookPath(commandLine[0])
	if err != nil {
		return err
	}
	err = syscall.Exec(path, commandLine, os.Environ())
	return fmt.Errorf("become %s: %w", path, err)
}

// LogFile is where a process's output goes.
func LogFile(cluster instance.Instance, name string) string {
	return filepath.Join(cluster.LogFolder(), name+".log")
}

// lastLines is how much of its log a dead process is remembered by.
const lastLines = 12

// LastWords is the end of a process's log.
func LastWords(cluster instance.Instance, name string) string {
	log, err := os.ReadFile(LogFile(cluster, name))
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(log)), "\n")
	return strings.Join(lines[max(0, len(lines)-lastLines):], "\n")
}

// Dead names the recorded processes that do not run any more.
func Dead(cluster instance.Instance) ([]string, error) {
	processes, err := records.Processes(cluster)
	if err != nil {
		return nil, err
	}
	var dead []string
	for _, recorded := range processes {
		if !recorded.Lives() {
			dead = append(dead, recorded.Name)
		}
	}
	slices.Sort(dead)
	return dead, nil
}
