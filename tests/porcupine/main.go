// Program porcupine checks recorded histories: whether each object's operations can have happened one
// at a time, each between its call and its return, as the kind of the object says, and whether each
// change was made exactly once. It fails when one cannot, when it could not decide, and when it does not
// find a history wrong that it has damaged itself.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"time"

	"github.com/anishathalye/porcupine"
)

type options struct {
	// Folder with histories, faults and, afterwards, pictures.
	folder string
	// For each search through one history.
	limit, mutantLimit time.Duration
	mutants            bool
}

func main() {
	var options options
	flag.DurationVar(&options.limit, "limit", 2*time.Minute, "time for each search through one history")
	flag.DurationVar(&options.mutantLimit, "mutant-limit", 5*time.Second, "the same for one that was damaged")
	flag.BoolVar(&options.mutants, "mutants", true, "damage histories and check that this is found out")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: porcupine [options] FOLDER")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	options.folder = flag.Arg(0)
	if err := run(options); err != nil {
		fmt.Fprintln(os.Stderr, "porcupine:", err)
		os.Exit(1)
	}
}

func run(options options) error {
	paths, err := filepath.Glob(filepath.Join(options.folder, "histories", "*.jsonl"))
	if err != nil {
		return err
	}
	if len(paths) == 0 {
		return fmt.Errorf("%s has no histories/*.jsonl", options.folder)
	}
	sort.Strings(paths)
	faults, err := readFaults(filepath.Join(options.folder, "faults.jsonl"))
	if err != nil {
		return err
	}
	report := newReport()
	for _, path := range paths {
		if err := checkOne(path, faults, options, report); err != nil {
			return err
		}
	}
	return report.finish(options.mutants)
}

func checkOne(path string, faults []fault, options options, report *report) error {
	history, err := readHistory(path)
	if err != nil {
		return err
	}
	verdict, err := judge(history, options.limit)
	if err != nil {
		return err
	}
	begin, end := history.used()
	report.row(history, during(faults, begin, end), verdict)
	if !verdict.passes() {
		return explain(path, history, verdict, options)
	}
	if !options.mutants {
		return nil
	}
	tried, err := tryMutants(history, history.Header.Seed, options.mutantLimit)
	report.tried(history, tried)
	return err
}

// Says what is wrong, and draws how far the history can be explained.
func explain(path string, history *History, found verdict, options options) error {
	if found.once != nil {
		fmt.Printf("  %s\n", found.once)
	}
	if found.result != porcupine.Illegal {
		return nil
	}
	picture := path[:len(path)-len(filepath.Ext(path))] + ".html"
	if err := draw(history, options.limit, picture); err != nil {
		return fmt.Errorf("cannot draw %s: %w", picture, err)
	}
	fmt.Printf("  picture: %s\n", picture)
	return nil
}

// A fault and when it was there.
type fault struct {
	Name  string `json:"fault"`
	Begin int64  `json:"begin"`
	End   int64  `json:"end"`
}

func readFaults(path string) ([]fault, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var faults []fault
	for lines := bufio.NewScanner(file); lines.Scan(); {
		var fault fault
		if err := json.Unmarshal(lines.Bytes(), &fault); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		faults = append(faults, fault)
	}
	return faults, nil
}

func during(faults []fault, begin, end int64) int {
	count := 0
	for _, fault := range faults {
		if fault.Begin <= end && fault.End >= begin {
			count++
		}
	}
	return count
}
