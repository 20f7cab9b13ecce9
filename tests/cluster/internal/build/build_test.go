package build

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"atomix.io/cluster/internal/step"
)

const exampleProgram = "package main\n\nfunc main() {}\n"

func newExample(t *testing.T) (Cache, Tool) {
	t.Helper()
	cache := Cache{Root: t.TempDir(), Source: t.TempDir()}
	write(t, filepath.Join(cache.Source, "tools", "example", "go.mod"), "module example\n\ngo 1.26.0\n")
	write(t, filepath.Join(cache.Source, "tools", "example", "main.go"), exampleProgram)
	tool := Tool{Name: "example", Package: ".", Programs: map[string]string{"example": "renamed"}}
	return cache, tool
}

func TestToolIsBuiltOnceAndFoundAgain(t *testing.T) {
	cache, tool := newExample(t)
	printer := step.NewPrinter(io.Discard)
	folder, err := cache.Ensure(tool, printer)
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(folder, "renamed")
	before, err := os.Stat(program)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cache.Ensure(tool, printer); err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(program)
	if err != nil || !os.SameFile(before, after) {
		t.Fatalf("the second call built again (%v)", err)
	}
	binaries, err := cache.BinaryFolder([]Tool{tool})
	if err != nil {
		t.Fatal(err)
	}
	if resolved, err := filepath.EvalSymlinks(filepath.Join(binaries, "renamed")); err != nil || resolved != program {
		t.Fatalf("the folder of programs leads to %s (%v)", resolved, err)
	}
}

func TestFolderChangesWithEverythingThatDecidesTheOutcome(t *testing.T) {
	cache, tool := newExample(t)
	seen := map[string]string{}
	remember := func(what string, tool Tool) {
		folder, err := cache.Folder(tool)
		if err != nil {
			t.Fatal(err)
		}
		if other, known := seen[folder]; known {
			t.Errorf("%s and %s share a folder", what, other)
		}
		seen[folder] = what
	}
	remember("the original", tool)
	flags := tool
	flags.LinkerFlags = "-s"
	remember("other linker flags", flags)
	renamed := tool
	renamed.Programs = map[string]string{"example": "other"}
	remember("other names", renamed)
	write(t, filepath.Join(cache.Source, "tools", "example", "go.sum"), "sum\n")
	remember("other sums", tool)
	write(t, filepath.Join(cache.Source, "tools", "example", "main.go"), exampleProgram+"// changed\n")
	remember("another source", tool)
}

func TestFailedBuildLeavesNothingAndSaysWhy(t *testing.T) {
	cache, tool := newExample(t)
	write(t, filepath.Join(cache.Source, "tools", "example", "main.go"), "package main\n\nfunc main() { undefinedName() }\n")
	folder, err := cache.Ensure(tool, step.NewPrinter(io.Discard))
	if err == nil {
		t.Fatal("a program that cannot be compiled was built")
	}
	if _, statError := os.Stat(folder); !errors.Is(statError, os.ErrNotExist) {
		t.Fatalf("the folder exists after %v", err)
	}
	entries, err := filepath.Glob(filepath.Join(cache.Root, "tools", ".building-*"))
	if err != nil || len(entries) > 0 {
		t.Fatalf("left behind: %v, %v", entries, err)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}
