package main

import (
	"errors"
	"slices"
)

var errNoItems = errors.New("nobody has read the whole list")

// A list that only grows. What it was at the end tells at which length each value was appended, so
// that its length is all that a step must know. Values are appended once each.
func listSteps(history *History) (steps[int], error) {
	items := longest(history)
	if items == nil {
		return steps[int]{}, errNoItems
	}
	places := make(map[string]int, len(*items))
	for place, item := range *items {
		places[item] = place
	}
	step := func(length int, operation Operation) (bool, int) {
		switch operation.Method {
		case "Append":
			place, there := places[operation.Arguments.Value]
			return there && place == length && operation.Outcome != refused, length + 1
		case "Get":
			index := operation.Arguments.Index
			if operation.Outcome == refused {
				return operation.Code == "OUT_OF_RANGE" && index >= length, length
			}
			return index < length && (*items)[index] == operation.Reply.Value, length
		case "Size":
			return operation.Outcome == succeeded && int(operation.Reply.Number) == length, length
		case "Items":
			read := operation.Reply.Items
			return len(read) == length && slices.Equal(read, (*items)[:length]), length
		}
		return false, length
	}
	return steps[int]{step: step}, nil
}

// The longest reading of all items.
func longest(history *History) *[]string {
	var longest *[]string
	for at := range history.Operations {
		operation := &history.Operations[at]
		if operation.Method != "Items" || operation.Outcome != succeeded {
			continue
		}
		if longest == nil || len(operation.Reply.Items) > len(*longest) {
			longest = &operation.Reply.Items
		}
	}
	return longest
}
