package main

import (
	"fmt"
	"math"
	"time"

	"github.com/anishathalye/porcupine"
)

// What was found out about a history.
type verdict struct {
	result  porcupine.CheckResult
	once    error
	seconds float64
}

// How many operations with unknown outcome are tried one after the other. Nearly always a few explain what
// was seen, and are found soon; only when none do, everything is tried.
var chains = []int{1, 3, math.MaxInt}

func judge(history *History, limit time.Duration) (verdict, error) {
	begun := time.Now()
	verdict := verdict{once: exactlyOnce(history)}
	observations := history.observations()
	for _, longest := range chains {
		model, err := modelOf(history, longest)
		if err != nil {
			return verdict, fmt.Errorf("%s: %w", history.Header.Name, err)
		}
		verdict.result = porcupine.CheckOperationsTimeout(model, observations, limit)
		if verdict.result == porcupine.Ok {
			break
		}
	}
	verdict.seconds = time.Since(begun).Seconds()
	return verdict, nil
}

// Draws how far a history can be explained.
func draw(history *History, limit time.Duration, path string) error {
	model, err := modelOf(history, math.MaxInt)
	if err != nil {
		return err
	}
	_, details := porcupine.CheckOperationsVerbose(model, history.observations(), limit)
	return porcupine.VisualizePath(model, details, path)
}

func (verdict verdict) passes() bool {
	return verdict.result == porcupine.Ok && verdict.once == nil
}

// Whether the history was found to be wrong, rather than not decided.
func (verdict verdict) fails() bool {
	return verdict.result == porcupine.Illegal || verdict.once != nil
}

func (verdict verdict) String() string {
	switch {
	case verdict.result == porcupine.Illegal && verdict.once != nil:
		return "NOT LINEARIZABLE, NOT ONCE"
	case verdict.result == porcupine.Illegal:
		return "NOT LINEARIZABLE"
	case verdict.once != nil:
		return "NOT ONCE"
	case verdict.result == porcupine.Unknown:
		return "UNDECIDED"
	}
	return "ok"
}
