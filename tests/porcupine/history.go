package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"sort"

	"github.com/anishathalye/porcupine"
)

// What became of an operation.
const (
	// It was answered.
	succeeded = "ok"
	// The primitive itself refused it: that tells something of its state, and changed nothing.
	refused = "refused"
	// It certainly did not happen, and tells nothing.
	failed = "failed"
	// It may happen at any time after its call, or never.
	unknown = "unknown"
)

// Header is the first line of a history.
type Header struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
	Seed uint64 `json:"seed"`
}

// Arguments are those of all methods; each uses some.
type Arguments struct {
	// What a counter is changed by, or set to.
	Number int64 `json:"number,omitempty"`
	// What a counter must be.
	Check int64  `json:"check,omitempty"`
	Value string `json:"value,omitempty"`
	// The version that must be there; 0 = any.
	Version uint64 `json:"version,omitempty"`
	Index   int    `json:"index,omitempty"`
	// Of an object that is not judged by key.
	Key string `json:"key,omitempty"`
}

// Versioned is a value with its version.
type Versioned struct {
	Value   string `json:"value"`
	Version uint64 `json:"version"`
}

// Reply is that of all methods; each uses some.
type Reply struct {
	Number  int64  `json:"number,omitempty"`
	Key     string `json:"key,omitempty"`
	Value   string `json:"value,omitempty"`
	Version uint64 `json:"version,omitempty"`
	// What a write has replaced; nil = nothing.
	Previous *Versioned `json:"previous,omitempty"`
	Present  bool       `json:"present,omitempty"`
	Items    []string   `json:"items,omitempty"`
}

// Operation is one line of a history. Times are nanoseconds of one monotonic clock.
type Operation struct {
	Client    int       `json:"client"`
	Key       string    `json:"key,omitempty"`
	Method    string    `json:"method"`
	Arguments Arguments `json:"arguments"`
	Call      int64     `json:"call"`
	Return    int64     `json:"return"`
	Outcome   string    `json:"outcome"`
	// The status code of what was not answered.
	Code  string `json:"code,omitempty"`
	Reply Reply  `json:"reply"`

	// Counts those with unknown outcome that have the same effect, from the first called.
	ordinal int
}

// History is what happened to one object, by the time of the calls.
type History struct {
	Header     Header
	Operations []Operation
}

func readHistory(path string) (*History, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 64<<20)
	if !lines.Scan() {
		return nil, fmt.Errorf("%s: has no header: %w", path, lines.Err())
	}
	history := &History{}
	if err := json.Unmarshal(lines.Bytes(), &history.Header); err != nil {
		return nil, fmt.Errorf("%s: header: %w", path, err)
	}
	for number := 2; lines.Scan(); number++ {
		var operation Operation
		if err := json.Unmarshal(lines.Bytes(), &operation); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, number, err)
		}
		if err := operation.check(); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, number, err)
		}
		history.Operations = append(history.Operations, operation)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	history.sort()
	return history, nil
}

func (operation *Operation) check() error {
	switch operation.Outcome {
	case unknown:
		return nil
	case succeeded, refused, failed:
		if operation.Return < operation.Call {
			return fmt.Errorf("%s returned before it was called", operation.Method)
		}
		return nil
	}
	return fmt.Errorf("%s has no outcome %q", operation.Method, operation.Outcome)
}

func (history *History) sort() {
	sort.SliceStable(history.Operations, func(one, other int) bool {
		return history.Operations[one].Call < history.Operations[other].Call
	})
}

// With a copy of the operations, for changes.
func (history *History) clone() *History {
	operations := append([]Operation(nil), history.Operations...)
	return &History{Header: history.Header, Operations: operations}
}

func (history *History) count(outcome string) int {
	count := 0
	for _, operation := range history.Operations {
		if operation.Outcome == outcome {
			count++
		}
	}
	return count
}

// Begin and end of what is known.
func (history *History) span() (int64, int64) {
	first, last := int64(math.MaxInt64), int64(0)
	for _, operation := range history.Operations {
		first = min(first, operation.Call)
		last = max(last, operation.Call, operation.Return)
	}
	return first, last
}

// When clients changed the object: at the end it is only read.
func (history *History) used() (int64, int64) {
	first, last := history.span()
	first, last = last, first
	for _, operation := range history.Operations {
		if !isRead(operation.Method) {
			first, last = min(first, operation.Call), max(last, operation.Call, operation.Return)
		}
	}
	return first, last
}

// Stands in each part of a history after everything whose outcome is known.
const end = "end"

// The operations that say something, as porcupine takes them. One with unknown outcome returns after the
// end: it has an effect on nothing there, so that it may also have never happened.
func (history *History) observations() []porcupine.Operation {
	_, last := history.span()
	var observations []porcupine.Operation
	keys := map[string]bool{}
	for _, operation := range number(history.Operations) {
		open := operation.Outcome == unknown
		if operation.Outcome == failed || open && isRead(operation.Method) {
			continue
		}
		returned := operation.Return
		if open {
			returned = last + 2
		}
		keys[operation.Key] = true
		observations = append(observations, porcupine.Operation{
			ClientId: operation.Client,
			Input:    operation,
			Call:     operation.Call,
			Output:   operation.Outcome,
			Return:   returned,
		})
	}
	for key := range keys {
		observations = append(observations, porcupine.Operation{
			Input:  Operation{Key: key, Method: end},
			Call:   last + 1,
			Return: last + 1,
		})
	}
	return observations
}

// Numbers the operations with unknown outcome among those with the same effect.
func number(operations []Operation) []Operation {
	type effect struct {
		key, method string
		arguments   Arguments
	}
	seen := map[effect]int{}
	numbered := append([]Operation(nil), operations...)
	for at := range numbered {
		operation := &numbered[at]
		if operation.Outcome != unknown {
			continue
		}
		same := effect{operation.Key, operation.Method, operation.Arguments}
		operation.ordinal = seen[same]
		seen[same]++
	}
	return numbered
}

func isRead(method string) bool {
	switch method {
	case "Get", "GetLock", "GetTerm", "Contains", "Size", "Items", "FirstEntry", "LastEntry":
		return true
	}
	return false
}

func byKey(history []porcupine.Operation) [][]porcupine.Operation {
	var keys []string
	parts := map[string][]porcupine.Operation{}
	for _, operation := range history {
		key := operation.Input.(Operation).Key
		if _, known := parts[key]; !known {
			keys = append(keys, key)
		}
		parts[key] = append(parts[key], operation)
	}
	partitions := make([][]porcupine.Operation, 0, len(keys))
	for _, key := range keys {
		partitions = append(partitions, parts[key])
	}
	return partitions
}
