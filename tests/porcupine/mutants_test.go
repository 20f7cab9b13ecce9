package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Good histories of each kind.
func good() []*builder {
	set := func(present bool) Operation { return element("Contains", present) }
	return []*builder{
		of("counter").add(increment(5, 5)).add(increment(9, 14)).add(count(14)),
		of("map").add(put("a", 3, nil)).add(put("b", 4, &Versioned{"a", 3})).add(get("b", 4)),
		of("list").add(append1("a")).add(at(0, "a")).add(items("a")),
		of("set").add(element("Add", true)).add(set(true)),
		of("lock").add(lock(1, 2)).add(unlock(1)).add(lock(2, 5)).add(unlock(2)),
		of("countermap").add(tallied("Increment", 5, 0, 0)).add(tallied("Get", 0, 0, 5)),
		of("multimap").add(valued("Put", "b")).add(valued("Get", "", "b")),
		of("indexedmap").add(kept("Append", "a", 1, "x")).add(kept("Get", "a", 1, "x")),
		of("election").add(elect("Enter", "a", 2, "a")).add(elect("Enter", "b", 2, "a", "b")),
	}
}

func TestDamageOfEachKindIsFound(t *testing.T) {
	for _, builder := range good() {
		builder.expect(t, true)
		tried, err := tryMutants(&builder.history, 7, limit)
		if err != nil {
			t.Fatal(err)
		}
		if tried.caught == 0 || len(tried.escaped) > 0 || tried.undecided > 0 {
			t.Errorf("%s: %+v", builder.history.Header.Kind, tried)
		}
		// The original is as it was.
		builder.expect(t, true)
	}
}

func TestAHistoryIsReadFromItsFile(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "counter-0.jsonl")
	write := func(lines ...string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	header := `{"kind":"counter","name":"counter-0","seed":18446744073709551615}`
	late := `{"client":2,"method":"Get","arguments":{},"call":40,"return":50,"outcome":"ok","reply":{"number":5}}`
	early := `{"client":1,"method":"Increment","arguments":{"number":5},"call":10,"outcome":"unknown","code":"UNAVAILABLE"}`
	write(header, late, early)
	history, err := readHistory(path)
	if err != nil {
		t.Fatal(err)
	}
	first := history.Operations[0]
	if first.Method != "Increment" || first.Arguments.Number != 5 || history.count(unknown) != 1 {
		t.Errorf("%+v", history)
	}
	if open := history.observations()[0].Return; open <= 50 {
		t.Errorf("what has no known outcome returns at %d", open)
	}
	for _, damaged := range []string{
		"{",
		`{"client":1,"method":"Get","call":10,"return":5,"outcome":"ok"}`,
		`{"client":1,"method":"Get","call":10,"return":15,"outcome":"fine"}`,
	} {
		write(header, damaged)
		if _, err := readHistory(path); err == nil {
			t.Errorf("%s is taken for an operation", damaged)
		}
	}
}

// The whole way, from files to the end of the program.
func TestARunWithADamagedHistoryFailsAndIsDrawn(t *testing.T) {
	folder := t.TempDir()
	histories := filepath.Join(folder, "histories")
	if err := os.Mkdir(histories, 0o700); err != nil {
		t.Fatal(err)
	}
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(folder, "faults.jsonl"), `{"fault":"kill a node","nodes":[1],"begin":5,"end":15}`+"\n")
	lines := `{"kind":"counter","name":"counter-0","seed":1}
{"client":1,"method":"Increment","arguments":{"number":5},"call":10,"return":20,"outcome":"ok","reply":{"number":5}}
{"client":2,"method":"Get","arguments":{},"call":30,"return":40,"outcome":"ok","reply":{"number":5}}
`
	path := filepath.Join(histories, "counter-0.jsonl")
	write(path, lines)
	if err := run(options{folder: folder, limit: limit, mutantLimit: limit, mutants: true}); err != nil {
		t.Error(err)
	}
	write(path, strings.Replace(lines, `40,"outcome":"ok","reply":{"number":5}`, `40,"outcome":"ok","reply":{"number":4}`, 1))
	if err := run(options{folder: folder, limit: limit, mutantLimit: limit, mutants: true}); err == nil {
		t.Error("a damaged history passes")
	}
	if _, err := os.Stat(filepath.Join(histories, "counter-0.html")); err != nil {
		t.Error(err)
	}
}
