// Package records keeps what a cluster made, so that any later run, also of
// another clone, can tell what lives and remove it. A process is known by its
// id together with its start time: an id alone may belong to a stranger by now.
package records

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Process identifies one process of this boot.
type Process struct {
	Name string `json:"name"`
	ID   int    `json:"id"`
	// StartTicks is the start time in clock ticks since boot (proc(5), stat field 22).
	StartTicks uint64 `json:"startTicks"`
}

// Identify records the process that has the id now.
func Identify(name string, id int) (Process, error) {
	stat, err := readStat(id)
	if err != nil {
		return Process{}, fmt.Errorf("identify process %d (%s): %w", id, name, err)
	}
	return Process{Name: name, ID: id, StartTicks: stat.startTicks}, nil
}

// Lives says whether the very process still runs. A zombie does not.
func (p Process) Lives() bool {
	stat, err := readStat(p.ID)
	return err == nil && stat.startTicks == p.StartTicks && !stat.isDead()
}

// Kill ends the process if it is still the one that was recorded.
func (p Process) Kill() error {
	// The handle pins the process before its identity is compared, so that the
	// signal cannot reach a later process with the same id.
	handle, err := os.FindProcess(p.ID)
	if err != nil {
		return nil
	}
	defer handle.Release()
	if !p.Lives() {
		return nil
	}
	if err := handle.Kill(); err != nil && p.Lives() {
		return fmt.Errorf("kill process %d (%s): %w", p.ID, p.Name, err)
	}
	return nil
}

type processStat struct {
	state      byte
	startTicks uint64
}

func (s processStat) isDead() bool { return s.state == 'Z' || s.state == 'X' }

func readStat(id int) (processStat, error) {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", id))
	if err != nil {
		return processStat{}, err
	}
	return parseStat(string(content))
}

// parseStat reads state and start time. The second field, the program's name in
// parentheses, may itself hold spaces and parentheses.
func parseStat(content string) (processStat, error) {
	end := strings.LastIndexByte(content, ')')
	if end < 0 {
		return processStat{}, fmt.Errorf("process status %q has no program name", content)
	}
	fields := strings.Fields(content[end+1:])
	const stateField, startField = 0, 19
	if len(fields) <= startField {
		return processStat{}, fmt.Errorf("process status %q is too short", content)
	}
	ticks, err := strconv.ParseUint(fields[startField], 10, 64)
	if err != nil {
		return processStat{}, fmt.Errorf("start time in process status %q: %w", content, err)
	}
	return processStat{state: fields[stateField][0], startTicks: ticks}, nil
}
