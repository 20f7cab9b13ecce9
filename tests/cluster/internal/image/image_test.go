package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// dynamicProgram is on every machine that these tests run on, and needs libraries.
const dynamicProgram = "/bin/ls"

func TestLibrariesAreThoseThatTheLoaderItselfNames(t *testing.T) {
	folders, err := SystemFolders()
	if err != nil {
		t.Fatal(err)
	}
	found, err := Libraries(dynamicProgram, folders)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, library := range found {
		got = append(got, filepath.Base(library.Name))
	}
	output, err := exec.Command("ldd", dynamicProgram).Output()
	if err != nil {
		t.Fatalf("ask the loader: %v", err)
	}
	var want []string
	for line := range strings.Lines(string(output)) {
		name := filepath.Base(strings.Fields(line)[0])
		if !strings.HasPrefix(name, "linux-vdso") {
			want = append(want, name)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Fatalf("found %v, the loader names %v", got, want)
	}
}

func TestMissingLibraryIsNamedWithItsUser(t *testing.T) {
	_, err := Libraries(dynamicProgram, []string{t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), dynamicProgram) || !strings.Contains(err.Error(), "lib") {
		t.Fatalf("error is %v", err)
	}
}

func TestSameInputGivesTheSameBytesWheneverAndInWhateverOrder(t *testing.T) {
	folder := t.TempDir()
	data := filepath.Join(folder, "data")
	if err := os.WriteFile(data, []byte("content"), 0o640); err != nil {
		t.Fatal(err)
	}
	files := []File{{dynamicProgram, "/bin/program"}, {data, "/etc/data"}}
	first := buildExample(t, files)
	if err := os.Chtimes(data, time.Unix(1e9, 0), time.Unix(1e9, 0)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(data, 0o644); err != nil {
		t.Fatal(err)
	}
	slices.Reverse(files)
	if !bytes.Equal(first, buildExample(t, files)) {
		t.Fatal("two builds differ")
	}
	if err := os.WriteFile(data, []byte("CONTENT"), 0o644); err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(first, buildExample(t, files)) {
		t.Fatal("changed content gives the same image")
	}
}

func TestProgramRunsFromTheImagesFileSystemAlone(t *testing.T) {
	archive := readTar(t, bytes.NewReader(buildExample(t, []File{{dynamicProgram, "/bin/program"}})))
	root := t.TempDir()
	layer := readTar(t, bytes.NewReader(archive[layerOf(t, archive)]))
	for name, content := range layer {
		path := filepath.Join(root, name)
		if strings.HasSuffix(name, "/") {
			if err := os.MkdirAll(path, 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// The image's own loader with only the image's libraries: what a container does.
	interpreter, err := readELF(dynamicProgram)
	if err != nil {
		t.Fatal(err)
	}
	var libraries string
	for name := range layer {
		if strings.HasPrefix(filepath.Base(name), "libc.") {
			libraries = filepath.Join(root, filepath.Dir(name))
		}
	}
	command := exec.Command(filepath.Join(root, interpreter.interpreter),
		"--inhibit-cache", "--library-path", libraries, filepath.Join(root, "bin/program"), root)
	output, err := command.CombinedOutput()
	if err != nil || !strings.Contains(string(output), "etc") {
		t.Fatalf("%v: %s", err, output)
	}
}

func TestDockersTableAndOCIsTableNameTheSameLayerAndUser(t *testing.T) {
	archive := readTar(t, bytes.NewReader(buildExample(t, []File{{dynamicProgram, "/bin/program"}})))
	layer := layerOf(t, archive)
	if _, known := archive[layer]; !known {
		t.Fatalf("the archive lacks %s", layer)
	}
	var index struct {
		Manifests []struct {
			Digest      string            `json:"digest"`
			Annotations map[string]string `json:"annotations"`
		} `json:"manifests"`
	}
	unmarshal(t, archive["index.json"], &index)
	if got := index.Manifests[0].Annotations["io.containerd.image.name"]; got != "docker.io/library/example:1" {
		t.Errorf("containerd would call it %s", got)
	}
	var manifest struct {
		Config struct {
			Digest string `json:"digest"`
		} `json:"config"`
		Layers []struct {
			Digest string `json:"digest"`
		} `json:"layers"`
	}
	unmarshal(t, archive[blobPath(index.Manifests[0].Digest)], &manifest)
	if blobPath(manifest.Layers[0].Digest) != layer {
		t.Errorf("OCI names %s, Docker %s", manifest.Layers[0].Digest, layer)
	}
	var config struct {
		Config struct{ User string } `json:"config"`
	}
	unmarshal(t, archive[blobPath(manifest.Config.Digest)], &config)
	if config.Config.User != "65532:65532" {
		t.Errorf("the container would run as %q", config.Config.User)
	}
}

func TestImagesThatCouldNotRunAreRefused(t *testing.T) {
	good := Image{Name: "example:1", Entrypoint: []string{"/bin/program"}, Files: []File{{dynamicProgram, "/bin/program"}}}
	cases := map[string]func(*Image){
		"no tag":                  func(i *Image) { i.Name = "registry:5000/example" },
		"tag latest":              func(i *Image) { i.Name = "example:latest" },
		"no entrypoint":           func(i *Image) { i.Entrypoint = nil },
		"entrypoint not inside":   func(i *Image) { i.Entrypoint = []string{"/bin/other"} },
		"relative destination":    func(i *Image) { i.Files = []File{{dynamicProgram, "bin/program"}} },
		"destination that climbs": func(i *Image) { i.Files = []File{{dynamicProgram, "/bin/../../program"}} },
		"source is a folder":      func(i *Image) { i.Files = []File{{"/", "/bin/program"}} },
	}
	for name, change := range cases {
		t.Run(name, func(t *testing.T) {
			image := good
			change(&image)
			path := filepath.Join(t.TempDir(), "image.tar")
			if err := Build(image, path); err == nil {
				t.Fatal("it was built")
			}
			if _, err := os.Stat(path); err == nil {
				t.Fatal("a failed build left an archive")
			}
		})
	}
}

func TestShortNamesAreSpelledOutAsRuntimesDo(t *testing.T) {
	cases := map[string]string{
		"node:1":               "docker.io/library/node:1",
		"atomix/node:1":        "docker.io/atomix/node:1",
		"atomix.local/node:1":  "atomix.local/node:1",
		"localhost/node:1":     "localhost/node:1",
		"registry:5000/node:1": "registry:5000/node:1",
	}
	for name, want := range cases {
		if got := fullReference(name); got != want {
			t.Errorf("%s becomes %s, want %s", name, got, want)
		}
	}
}

func buildExample(t *testing.T, files []File) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image.tar")
	err := Build(Image{Name: "example:1", Entrypoint: []string{"/bin/program"}, Files: files}, path)
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func layerOf(t *testing.T, archive map[string][]byte) string {
	t.Helper()
	var docker []struct{ Layers []string }
	unmarshal(t, archive["manifest.json"], &docker)
	return docker[0].Layers[0]
}

func readTar(t *testing.T, content io.Reader) map[string][]byte {
	t.Helper()
	result := map[string][]byte{}
	reader := tar.NewReader(content)
	for {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return result
		}
		if err != nil {
			t.Fatal(err)
		}
		if result[header.Name], err = io.ReadAll(reader); err != nil {
			t.Fatal(err)
		}
	}
}

func unmarshal(t *testing.T, content []byte, result any) {
	t.Helper()
	if err := json.Unmarshal(content, result); err != nil {
		t.Fatalf("%v in %q", err, content)
	}
}
