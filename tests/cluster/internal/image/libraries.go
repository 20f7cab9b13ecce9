package image

import (
	"bufio"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Library is a shared library that a program needs.
type Library struct {
	// Name is what programs ask for (its DT_NEEDED name), or, for the program
	// loader, its full path.
	Name string
	// Source is the file on this machine.
	Source string
}

// Libraries finds what the dynamic loader would load for the program: its
// interpreter and, by rounds, the libraries that it and they need (ld.so(8)).
// A static program needs none.
func Libraries(program string, systemFolders []string) ([]Library, error) {
	root, err := readELF(program)
	if err != nil {
		return nil, err
	}
	var found []Library
	if root.interpreter != "" {
		found = append(found, Library{Name: root.interpreter, Source: root.interpreter})
	}
	known := map[string]bool{}
	pending := []elfFile{root}
	for len(pending) > 0 {
		user := pending[0]
		pending = pending[1:]
		for _, name := range user.needed {
			if known[name] || name == filepath.Base(root.interpreter) {
				continue
			}
			known[name] = true
			library, err := findLibrary(name, user, root, systemFolders)
			if err != nil {
				return nil, err
			}
			found = append(found, Library{Name: name, Source: library.path})
			pending = append(pending, library)
		}
	}
	return found, nil
}

// SystemFolders are the folders in which the loader looks for every program:
// its built-in ones, then those of its configuration.
func SystemFolders() ([]string, error) {
	folders := []string{
		"/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu",
		"/lib/aarch64-linux-gnu", "/usr/lib/aarch64-linux-gnu",
		"/lib64", "/usr/lib64", "/lib", "/usr/lib",
	}
	configured, err := readLoaderConfiguration("/etc/ld.so.conf", 0)
	if err != nil {
		return nil, err
	}
	return append(folders, configured...), nil
}

type elfFile struct {
	path          string
	interpreter   string
	needed        []string
	searchFolders []string
	machine       elf.Machine
}

func readELF(path string) (elfFile, error) {
	file, err := elf.Open(path)
	if err != nil {
		return elfFile{}, fmt.Errorf("read program %s: %w", path, err)
	}
	defer file.Close()
	needed, err := file.ImportedLibraries()
	if err != nil && !errors.Is(err, elf.ErrNoSymbols) {
		return elfFile{}, fmt.Errorf("read what %s needs: %w", path, err)
	}
	result := elfFile{path: path, needed: needed, machine: file.Machine}
	for _, program := range file.Progs {
		if program.Type != elf.PT_INTERP {
			continue
		}
		text := make([]byte, program.Filesz)
		if _, err := program.ReadAt(text, 0); err != nil {
			return elfFile{}, fmt.Errorf("read the interpreter of %s: %w", path, err)
		}
		result.interpreter = strings.TrimRight(string(text), "\x00")
	}
	for _, tag := range []elf.DynTag{elf.DT_RPATH, elf.DT_RUNPATH} {
		values, err := file.DynString(tag)
		if err != nil {
			continue // The file has no dynamic section: it is static.
		}
		for _, value := range values {
			for folder := range strings.SplitSeq(value, ":") {
				origin := filepath.Dir(path)
				folder = strings.NewReplacer("$ORIGIN", origin, "${ORIGIN}", origin).Replace(folder)
				result.searchFolders = append(result.searchFolders, folder)
			}
		}
	}
	return result, nil
}

func findLibrary(name string, user, root elfFile, systemFolders []string) (elfFile, error) {
	folders := slices.Concat(user.searchFolders, root.searchFolders, systemFolders)
	for _, folder := range folders {
		candidate := filepath.Join(folder, name)
		if _, err := os.Stat(candidate); err != nil {
			continue
		}
		library, err := readELF(candidate)
		if err == nil && library.machine == root.machine {
			return library, nil
		}
	}
	return elfFile{}, fmt.Errorf("library %s, which %s needs, is in none of %s", name, user.path, strings.Join(folders, ", "))
}

// readLoaderConfiguration reads ld.so.conf(5): a folder a line, and includes.
func readLoaderConfiguration(path string, depth int) ([]string, error) {
	const deepestInclude = 8
	if depth > deepestInclude {
		return nil, fmt.Errorf("%s includes itself", path)
	}
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var folders []string
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		line, _, _ := strings.Cut(lines.Text(), "#")
		fields := strings.Fields(line)
		switch {
		case len(fields) == 0:
		case fields[0] == "include":
			for _, pattern := range fields[1:] {
				if !filepath.IsAbs(pattern) {
					pattern = filepath.Join(filepath.Dir(path), pattern)
				}
				matches, err := filepath.Glob(pattern)
				if err != nil {
					return nil, err
				}
				for _, match := range matches {
					included, err := readLoaderConfiguration(match, depth+1)
					if err != nil {
						return nil, err
					}
					folders = append(folders, included...)
				}
			}
		default:
			folders = append(folders, fields[0])
		}
	}
	return folders, lines.Err()
}
