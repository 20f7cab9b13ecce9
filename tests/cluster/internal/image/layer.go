package image

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strings"
)

// User is the id of the user and group that containers run as.
const User = 65532

// File is a file to put into the image.
type File struct {
	// Source is the path on this machine.
	Source string
	// Destination is the absolute path in the image.
	Destination string
}

type entry struct {
	mode    int64
	owner   int
	content []byte
	source  string
	isDir   bool
}

// tree is the image's file system by absolute path.
type tree map[string]entry

func newTree() tree {
	return tree{
		"/etc/passwd": {mode: 0o644, content: fmt.Appendf(nil,
			"root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:%d:%d:nonroot:/home/nonroot:/sbin/nologin\n", User, User)},
		"/etc/group":         {mode: 0o644, content: fmt.Appendf(nil, "root:x:0:\nnonroot:x:%d:\n", User)},
		"/etc/nsswitch.conf": {mode: 0o644, content: []byte("passwd: files\ngroup: files\nhosts: files dns\n")},
		"/home/nonroot":      {mode: 0o755, owner: User, isDir: true},
		"/tmp":               {mode: 0o1777, isDir: true},
		"/var/lib":           {mode: 0o755, isDir: true},
	}
}

// add puts files in, and for each program among them the libraries it needs.
func (t tree) add(files []File, systemFolders []string) error {
	for _, file := range files {
		if !path.IsAbs(file.Destination) || path.Clean(file.Destination) != file.Destination {
			return fmt.Errorf("destination %q is not a clean absolute path", file.Destination)
		}
		info, err := os.Stat(file.Source)
		if err != nil {
			return fmt.Errorf("add to the image: %w", err)
		}
		if !info.Mode().IsRegular() {
			return fmt.Errorf("add %s to the image: it is not a regular file", file.Source)
		}
		// Modes are made uniform: a checkout's umask must not change the image.
		mode := int64(0o644)
		if info.Mode()&0o111 != 0 {
			mode = 0o755
		}
		t[file.Destination] = entry{mode: mode, source: file.Source}
		if err := t.addLibraries(file.Source, systemFolders); err != nil {
			return err
		}
	}
	return nil
}

// addLibraries puts all libraries into the folder that the C library was found
// in: that one the loader searches without configuration.
func (t tree) addLibraries(program string, systemFolders []string) error {
	if isProgram, err := isELF(program); err != nil || !isProgram {
		return err
	}
	libraries, err := Libraries(program, systemFolders)
	if err != nil {
		return err
	}
	folder := "/lib"
	for _, library := range libraries {
		if strings.HasPrefix(library.Name, "libc.") {
			folder = filepath.Dir(library.Source)
		}
	}
	for _, library := range libraries {
		destination := library.Name
		if !path.IsAbs(destination) {
			destination = path.Join(folder, library.Name)
		}
		t[destination] = entry{mode: 0o755, source: library.Source}
	}
	return nil
}

// write renders the tree as a tar layer. Nothing in it depends on time, on the
// order of arguments or on who builds.
func (t tree) write(out io.Writer) error {
	all := tree{}
	for name, item := range t {
		all[name] = item
		for parent := path.Dir(name); parent != "/"; parent = path.Dir(parent) {
			if _, known := t[parent]; !known {
				all[parent] = entry{mode: 0o755, isDir: true}
			}
		}
	}
	names := make([]string, 0, len(all))
	for name := range all {
		names = append(names, name)
	}
	sort.Strings(names)
	archive := tar.NewWriter(out)
	for _, name := range names {
		if err := writeEntry(archive, name, all[name]); err != nil {
			return fmt.Errorf("write %s into the image: %w", name, err)
		}
	}
	return archive.Close()
}

func writeEntry(archive *tar.Writer, name string, item entry) error {
	header := &tar.Header{
		Name:   strings.TrimPrefix(name, "/"),
		Mode:   item.mode,
		Uid:    item.owner,
		Gid:    item.owner,
		Format: tar.FormatPAX,
	}
	if item.isDir {
		header.Typeflag = tar.TypeDir
		header.Name += "/"
		return archive.WriteHeader(header)
	}
	header.Typeflag = tar.TypeReg
	if item.source == "" {
		header.Size = int64(len(item.content))
		if err := archive.WriteHeader(header); err != nil {
			return err
		}
		_, err := io.Copy(archive, bytes.NewReader(item.content))
		return err
	}
	file, err := os.Open(item.source)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	header.Size = info.Size()
	if err := archive.WriteHeader(header); err != nil {
		return err
	}
	_, err = io.Copy(archive, file)
	return err
}

func isELF(file string) (bool, error) {
	opened, err := os.Open(file)
	if err != nil {
		return false, err
	}
	defer opened.Close()
	magic := make([]byte, len(elf.ELFMAG))
	_, err = io.ReadFull(opened, magic)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return false, nil
	}
	return string(magic) == elf.ELFMAG, err
}
