package main

import (
	"slices"
	"strconv"
	"strings"
)

// A map in the order of its indexes, which are given one after the other and never again.
type indexed struct {
	// KEY=INDEX=VALUE in order, each followed by a blank: a text can be compared.
	entries string
	last    uint64
}

type indexedEntry struct {
	key, index, value string
}

func (entry indexedEntry) String() string {
	return entry.key + "=" + entry.index + "=" + entry.value + " "
}

func indexedmapSteps() steps[indexed] {
	return steps[indexed]{step: stepIndexedmap}
}

func stepIndexedmap(state indexed, operation Operation) (bool, indexed) {
	next, told, code := state.after(operation)
	switch operation.Outcome {
	case refused:
		return code == operation.Code, state
	case succeeded:
		reply := operation.Reply
		seen := indexedEntry{reply.Key, strconv.FormatInt(reply.Number, 10), reply.Value}
		return code == "" && seen == told, next
	default:
		return true, next
	}
}

// What the map is afterwards and the entry that the reply tells, or the code with which it refuses.
func (state indexed) after(operation Operation) (indexed, indexedEntry, string) {
	entries := state.list()
	arguments := operation.Arguments
	at := slices.IndexFunc(entries, func(entry indexedEntry) bool { return entry.key == arguments.Key })
	switch operation.Method {
	case "Append":
		if at >= 0 {
			return state, indexedEntry{}, "ALREADY_EXISTS"
		}
		state.last++
		entry := indexedEntry{arguments.Key, strconv.FormatUint(state.last, 10), arguments.Value}
		state.entries += entry.String()
		return state, entry, ""
	case "FirstEntry":
		at = min(0, len(entries)-1)
	case "LastEntry":
		at = len(entries) - 1
	}
	if at < 0 {
		return state, indexedEntry{}, "NOT_FOUND"
	}
	told := entries[at]
	switch operation.Method {
	case "Update":
		entries[at].value = arguments.Value
		told = entries[at]
	case "Remove":
		entries = slices.Delete(entries, at, at+1)
	}
	state.entries = ""
	for _, entry := range entries {
		state.entries += entry.String()
	}
	return state, told, ""
}

func (state indexed) list() []indexedEntry {
	var entries []indexedEntry
	for _, text := range strings.Fields(state.entries) {
		key, rest, _ := strings.Cut(text, "=")
		index, value, _ := strings.Cut(rest, "=")
		entries = append(entries, indexedEntry{key, index, value})
	}
	return entries
}
