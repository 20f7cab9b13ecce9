package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

const rowFormat = "%-16s %10v %8v %8v %8v  %-8s %8s\n"

// What was checked so far.
type report struct {
	operations, unknown, refusedOutright int
	seconds                              float64
	wrong                                []string
	mutants                              mutants
	// Damaged histories of each kind that were found out.
	caught map[string]int
}

func newReport() *report {
	fmt.Printf(rowFormat, "object", "operations", "unknown", "failed", "faults", "result", "seconds")
	return &report{caught: map[string]int{}}
}

func (report *report) row(history *History, faults int, verdict verdict) {
	operations, open, outright := len(history.Operations), history.count(unknown), history.count(failed)
	report.operations += operations
	report.unknown += open
	report.refusedOutright += outright
	report.seconds += verdict.seconds
	if !verdict.passes() {
		report.wrong = append(report.wrong, history.Header.Name)
	}
	fmt.Printf(rowFormat, history.Header.Name, operations, open, outright, faults, verdict,
		fmt.Sprintf("%.2f", verdict.seconds))
}

func (report *report) tried(history *History, tried mutants) {
	kind := history.Header.Kind
	report.caught[kind] += tried.caught
	report.mutants.caught += tried.caught
	report.mutants.undecided += tried.undecided
	for _, name := range tried.escaped {
		report.mutants.escaped = append(report.mutants.escaped, history.Header.Name+": "+name)
	}
}

// Prints the sums, and says whether all is well.
func (report *report) finish(withMutants bool) error {
	result := "ok"
	if len(report.wrong) > 0 {
		result = "FAILED"
	}
	fmt.Printf(rowFormat, "all", report.operations, report.unknown, report.refusedOutright, "", result,
		fmt.Sprintf("%.2f", report.seconds))
	if len(report.wrong) > 0 {
		return fmt.Errorf("wrong or undecided: %s", strings.Join(report.wrong, ", "))
	}
	if !withMutants {
		return nil
	}
	return report.checkMutants()
}

func (report *report) checkMutants() error {
	tried := report.mutants
	fmt.Printf("damaged histories: %d found out, %d passed, %d undecided\n",
		tried.caught, len(tried.escaped), tried.undecided)
	if len(tried.escaped) > 0 {
		return fmt.Errorf("damage that was not found out: %s", strings.Join(tried.escaped, "; "))
	}
	for _, kind := range slices.Sorted(maps.Keys(report.caught)) {
		if report.caught[kind] == 0 {
			return fmt.Errorf("no damage was found out in any history of kind %s", kind)
		}
	}
	if tried.caught == 0 {
		return errors.New("no history was damaged")
	}
	return nil
}
