package main

import (
	"slices"
	"strings"
)

// An election. Each client enters under a name of its own, that is its number, so that its candidate goes
// with its connection.
type standing struct {
	// Names in order, the leader's first, each followed by a blank: a text can be compared.
	line string
	term uint64
	// Nobody has seen the term yet: it began with an operation that was not answered.
	unseen bool
	// The newest term that was seen.
	floor uint64
	// Those who entered without an answer, and whom nobody has seen yet.
	unnoticed string
}

func electionSteps() steps[standing] {
	return steps[standing]{step: stepElection}
}

// As with locks, there also is "Lost".
func stepElection(state standing, operation Operation) (bool, standing) {
	if operation.Outcome == refused {
		return false, state
	}
	line := state.lineAfter(operation)
	newLeader := first(line) != first(state.line)
	if operation.Outcome == unknown {
		return state.perhaps(operation, line, newLeader)
	}
	term := operation.Reply.Version
	next := standing{line: line, term: term, floor: max(state.floor, term)}
	var right bool
	switch {
	case newLeader || state.unseen:
		right = term > state.floor
	default:
		right = term == state.term
	}
	if line == "" {
		// It does not exist any more.
		next.term = 0
	}
	return right && slices.Equal(strings.Fields(line), operation.Reply.Items), next
}

func (state standing) perhaps(operation Operation, line string, newLeader bool) (bool, standing) {
	name := operation.Arguments.Value + " "
	switch {
	case len(line) > len(state.line):
		state.unnoticed += name
	case len(line) < len(state.line) && !state.unseen && strings.Contains(" "+state.unnoticed, " "+name):
		// What nobody has noticed may as well not have happened.
		return false, state
	}
	if newLeader {
		state.term, state.unseen = 0, line != ""
	}
	state.line = line
	return true, state
}

func first(line string) string {
	name, _, _ := strings.Cut(line, " ")
	return name
}

func (state standing) lineAfter(operation Operation) string {
	names := strings.Fields(state.line)
	name := operation.Arguments.Value
	at := slices.Index(names, name)
	switch operation.Method {
	case "Enter":
		if at < 0 {
			names = append(names, name)
		}
	case "Withdraw", "Evict", "Lost":
		if at >= 0 {
			names = slices.Delete(names, at, at+1)
		}
	case "Anoint":
		if at > 0 {
			names = slices.Insert(slices.Delete(names, at, at+1), 0, name)
		}
	case "Promote":
		if at > 0 {
			names[at-1], names[at] = names[at], names[at-1]
		}
	case "Demote":
		if at >= 0 {
			names = append(slices.Delete(names, at, at+1), name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	return strings.Join(names, " ") + " "
}
