// Package build makes the cluster's programs from pinned Go modules and keeps
// them in a cache outside the work tree. A tool's folder there is named after
// everything that decides the outcome, so a second run costs nothing.
// It does not install Debian packages: see package packages.
package build

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
	"syscall"

	"atomix.io/cluster/internal/step"
)

// Cache is where built tools live and where their modules are read from.
type Cache struct {
	// Root is the cache folder; tools lie in Root/tools.
	Root string
	// Source is the folder that holds tools/NAME/go.mod.
	Source string
}

// Folder is the cache folder of one tool; it exists only once the tool is built.
func (c Cache) Folder(tool Tool) (string, error) {
	key, err := c.key(tool)
	if err != nil {
		return "", err
	}
	return filepath.Join(c.Root, "tools", tool.Name+"-"+key), nil
}

// Ensure builds the tool if the cache lacks it and returns its folder.
// Two programs that ask at the same time build it once.
func (c Cache) Ensure(tool Tool, printer *step.Printer) (string, error) {
	folder, err := c.Folder(tool)
	if err != nil {
		return "", err
	}
	if isBuilt(folder, tool) {
		return folder, nil
	}
	unlock, err := lock(filepath.Join(c.Root, "tools", "."+tool.Name+".lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	if isBuilt(folder, tool) {
		return folder, nil
	}
	name := fmt.Sprintf("build %s (%s when nothing is cached)", tool.Name, tool.Expectation)
	return folder, printer.Do(name, func() error { return c.compile(tool, folder) })
}

// BinaryFolder makes a folder of symbolic links to every program of the given
// tools, all of which must be built. Its name follows from what it links to.
func (c Cache) BinaryFolder(tools []Tool) (string, error) {
	targets := map[string]string{}
	for _, tool := range tools {
		folder, err := c.Folder(tool)
		if err != nil {
			return "", err
		}
		for _, program := range tool.Programs {
			targets[program] = filepath.Join(folder, program)
		}
	}
	names := make([]string, 0, len(targets))
	for name := range targets {
		names = append(names, name)
	}
	sort.Strings(names)
	digest := sha256.New()
	for _, name := range names {
		fmt.Fprintln(digest, targets[name])
	}
	folder := filepath.Join(c.Root, "tools", "bin-"+hex.EncodeToString(digest.Sum(nil))[:12])
	if _, err := os.Stat(folder); err == nil {
		return folder, nil
	}
	return folder, replaceFolder(folder, func(temporary string) error {
		for _, name := range names {
			if err := os.Symlink(targets[name], filepath.Join(temporary, name)); err != nil {
				return err
			}
		}
		return nil
	})
}

func (c Cache) compile(tool Tool, folder string) error {
	return replaceFolder(folder, func(temporary string) error {
		arguments := append(compileArguments(tool), "-o", temporary+"/", tool.Package)
		command := exec.Command("go", arguments...)
		command.Dir = filepath.Join(c.Source, "tools", tool.Name)
		command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
		output, err := command.CombinedOutput()
		if err != nil {
			return fmt.Errorf("go %s in %s: %w\n%s", strings.Join(arguments, " "), command.Dir, err, lastLines(string(output), 40))
		}
		for built, wanted := range tool.Programs {
			if built == wanted {
				continue
			}
			if err := os.Rename(filepath.Join(temporary, built), filepath.Join(temporary, wanted)); err != nil {
				return fmt.Errorf("name %s of tool %s: %w", wanted, tool.Name, err)
			}
		}
		return nil
	})
}

func compileArguments(tool Tool) []string {
	// The linker strips debug information anyway; not to make it saves a twentieth of the time.
	return []string{"build", "-trimpath", "-buildvcs=false", "-gcflags=all=-dwarf=false", "-ldflags", tool.LinkerFlags}
}

func (c Cache) key(tool Tool) (string, error) {
	digest := sha256.New()
	fmt.Fprintln(digest, runtime.Version(), runtime.GOARCH, compileArguments(tool), tool.Package, tool.Programs)
	source := filepath.Join(c.Source, "tools", tool.Name)
	err := filepath.WalkDir(source, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(source, path)
		if err != nil {
			return err
		}
		fmt.Fprintln(digest, relative, len(content))
		digest.Write(content)
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("read the module of tool %s: %w", tool.Name, err)
	}
	return hex.EncodeToString(digest.Sum(nil))[:12], nil
}

func isBuilt(folder string, tool Tool) bool {
	for _, program := range tool.Programs {
		if _, err := os.Stat(filepath.Join(folder, program)); err != nil {
			return false
		}
	}
	return true
}

// replaceFolder fills a temporary folder and renames it, so that the final name
// never holds half of the content.
func replaceFolder(folder string, fill func(temporary string) error) error {
	parent := filepath.Dir(folder)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return err
	}
	temporary, err := os.MkdirTemp(parent, ".building-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temporary)
	if err := os.Chmod(temporary, 0o755); err != nil {
		return err
	}
	if err := fill(temporary); err != nil {
		return err
	}
	err = os.Rename(temporary, folder)
	if errors.Is(err, fs.ErrExist) || errors.Is(err, syscall.ENOTEMPTY) {
		if err := os.RemoveAll(folder); err != nil {
			return err
		}
		err = os.Rename(temporary, folder)
	}
	return err
}

func lock(path string) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
		file.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { file.Close() }, nil
}

func lastLines(text string, count int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if len(lines) > count {
		lines = lines[len(lines)-count:]
	}
	return strings.Join(lines, "\n")
}
