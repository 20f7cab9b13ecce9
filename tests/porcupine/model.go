package main

import (
	"fmt"
	"hash/maphash"

	"github.com/anishathalye/porcupine"
)

// What one kind of object does with one operation at a time. What is done with an unknown outcome has an
// effect or, with the same state, none.
type steps[State comparable] struct {
	initial State
	step    func(State, Operation) (bool, State)
}

// A state of an object, and how it came to it.
type progress[State comparable] struct {
	state State
	// How many operations with unknown outcome came last.
	chain int
	// Everything whose outcome is known was passed.
	ended bool
}

var seed = maphash.MakeSeed()

// With at most so many operations with unknown outcome one after the other.
func (steps steps[State]) model(longest int) porcupine.Model {
	return porcupine.Model{
		Partition: byKey,
		Init:      func() any { return progress[State]{state: steps.initial} },
		Step: func(state, input, _ any) (bool, any) {
			return steps.advance(state.(progress[State]), input.(Operation), longest)
		},
		Hash: func(state any) uint64 {
			return maphash.Comparable(seed, state.(progress[State]))
		},
		DescribeOperation: func(input, _ any) string { return describe(input.(Operation)) },
		DescribeState:     func(state any) string { return fmt.Sprintf("%+v", state.(progress[State]).state) },
	}
}

// An operation with unknown outcome takes its turn where it has an effect, or after the end: then it never
// happened. To try it where it has none would double the work each time.
func (steps steps[State]) advance(before progress[State], operation Operation, longest int) (bool, any) {
	if operation.Method == end {
		return true, progress[State]{state: before.state, ended: true}
	}
	if operation.Outcome != unknown {
		possible, state := steps.step(before.state, operation)
		return possible, progress[State]{state: state, ended: before.ended}
	}
	if before.ended {
		return true, before
	}
	if before.chain >= longest {
		return false, before
	}
	possible, state := steps.step(before.state, operation)
	return possible && state != before.state, progress[State]{state: state, chain: before.chain + 1}
}

// The model of a history's kind.
func modelOf(history *History, longest int) (porcupine.Model, error) {
	switch history.Header.Kind {
	case "counter":
		return counterSteps().model(longest), nil
	case "value", "map":
		return versionedSteps().model(longest), nil
	case "set":
		return setSteps().model(longest), nil
	case "lock":
		return lockSteps().model(longest), nil
	case "countermap":
		return countermapSteps().model(longest), nil
	case "multimap":
		return multimapSteps().model(longest), nil
	case "indexedmap":
		return indexedmapSteps().model(longest), nil
	case "election":
		return electionSteps().model(longest), nil
	case "list":
		steps, err := listSteps(history)
		return steps.model(longest), err
	}
	return porcupine.Model{}, fmt.Errorf("there is no model of kind %q", history.Header.Kind)
}

func describe(operation Operation) string {
	result := operation.Outcome
	switch operation.Outcome {
	case succeeded:
		result = fmt.Sprintf("%+v", operation.Reply)
		if previous := operation.Reply.Previous; previous != nil {
			result = fmt.Sprintf("version %d, before %+v", operation.Reply.Version, *previous)
		}
	case refused, unknown:
		result += " " + operation.Code
	}
	return fmt.Sprintf("%s %s %+v -> %s", operation.Method, operation.Key, operation.Arguments, result)
}
