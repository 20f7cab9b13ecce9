package main

import (
	"slices"
	"strings"
)

// One key of a multimap: its values in order, each followed by a blank.
type values string

func multimapSteps() steps[values] {
	return steps[values]{step: stepMultimap}
}

func stepMultimap(state values, operation Operation) (bool, values) {
	present := strings.Fields(string(state))
	value := operation.Arguments.Value
	at, there := slices.BinarySearch(present, value)
	next, code := present, ""
	switch operation.Method {
	case "Put":
		if there {
			code = "ALREADY_EXISTS"
		} else {
			next = slices.Insert(slices.Clone(present), at, value)
		}
	case "Remove":
		if there {
			next = slices.Delete(slices.Clone(present), at, at+1)
		} else {
			code = "NOT_FOUND"
		}
	case "Replace":
		next = strings.Fields(value)
	}
	switch operation.Outcome {
	case refused:
		return code == operation.Code, state
	case succeeded:
		return code == "" && toldValues(operation, present, there), joined(next)
	default:
		return true, joined(next)
	}
}

// Whether the reply is that to what is present.
func toldValues(operation Operation, present []string, there bool) bool {
	switch operation.Method {
	case "Get", "Replace":
		return slices.Equal(operation.Reply.Items, present)
	case "Contains":
		return operation.Reply.Present == there
	}
	return true
}

func joined(present []string) values {
	if len(present) == 0 {
		return ""
	}
	return values(strings.Join(present, " ") + " ")
}
