package main

import (
	"errors"
	"fmt"
)

// Whether each acknowledged change was made exactly once, and each other one at most once: by counting,
// without a model. Only counters that are only added to, and lists, can tell.
func exactlyOnce(history *History) error {
	switch history.Header.Kind {
	case "counter":
		return countedOnce(history)
	case "list":
		return appendedOnce(history)
	}
	return nil
}

// The counter's last value lies between what was acknowledged and what may have been counted beside it.
func countedOnce(history *History) error {
	var acknowledged, least, most int64
	var last *Operation
	for at := range history.Operations {
		operation := &history.Operations[at]
		delta := operation.Arguments.Number
		switch operation.Method {
		case "Set", "Update":
			return nil
		case "Get":
			if operation.Outcome == succeeded {
				last = operation
			}
			continue
		case "Decrement":
			delta = -delta
		}
		switch operation.Outcome {
		case succeeded:
			acknowledged += delta
		case unknown:
			least += min(delta, 0)
			most += max(delta, 0)
		}
	}
	if last == nil {
		return errors.New("nobody has read the counter")
	}
	for _, operation := range history.Operations {
		if !isRead(operation.Method) && operation.Return > last.Call {
			return errors.New("nobody has read the counter at the end")
		}
	}
	value := last.Reply.Number
	if value < acknowledged+least || value > acknowledged+most {
		return fmt.Errorf("%d were acknowledged, and between %d and %d unknown, but it stands at %d",
			acknowledged, least, most, value)
	}
	return nil
}

func appendedOnce(history *History) error {
	items := longest(history)
	if items == nil {
		return errNoItems
	}
	found := map[string]int{}
	for _, item := range *items {
		found[item]++
	}
	for _, operation := range history.Operations {
		if operation.Method != "Append" {
			continue
		}
		value := operation.Arguments.Value
		times := found[value]
		delete(found, value)
		switch {
		case times > 1:
			return fmt.Errorf("%q was appended once and is there %d times", value, times)
		case times == 0 && operation.Outcome == succeeded:
			return fmt.Errorf("%q was acknowledged and is not there", value)
		case times == 1 && (operation.Outcome == failed || operation.Outcome == refused):
			return fmt.Errorf("%q was refused and is there", value)
		}
	}
	for item := range found {
		return fmt.Errorf("%q is there and nobody has appended it", item)
	}
	return nil
}
