// Package image builds container images without a container engine and without
// a base image: the given files, the shared libraries that the programs among
// them need, and a user to run as. The same input gives the same bytes.
// The archive is an OCI image layout that Docker can load as well.
// It does not push to registries.
package image

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// Image describes what to build.
type Image struct {
	// Name is the reference with a tag, such as atomix.local/node:dev.
	Name string
	// Entrypoint is the program and its first arguments.
	Entrypoint  []string
	Environment []string
	Files       []File
}

const (
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	configType   = "application/vnd.oci.image.config.v1+json"
	layerType    = "application/vnd.oci.image.layer.v1.tar"
	indexType    = "application/vnd.oci.image.index.v1+json"
	// created stands in every image: the time of building would make two equal builds differ.
	created = "1970-01-01T00:00:00Z"
)

type object = map[string]any

// Build writes the image's archive to the path, at once or not at all.
func Build(image Image, path string) error {
	if err := image.check(); err != nil {
		return err
	}
	folders, err := SystemFolders()
	if err != nil {
		return err
	}
	content := newTree()
	if err := content.add(image.Files, folders); err != nil {
		return err
	}
	if _, known := content[image.Entrypoint[0]]; !known {
		return fmt.Errorf("entrypoint %s is not among the files of image %s", image.Entrypoint[0], image.Name)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	temporary, err := os.MkdirTemp(filepath.Dir(path), ".image-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temporary)
	layer := filepath.Join(temporary, "layer.tar")
	layerDigest, err := writeLayer(content, layer)
	if err != nil {
		return err
	}
	archive := filepath.Join(temporary, "image.tar")
	if err := writeArchive(image, layer, layerDigest, archive); err != nil {
		return err
	}
	return os.Rename(archive, path)
}

func (i Image) check() error {
	slash, colon := strings.LastIndexByte(i.Name, '/'), strings.LastIndexByte(i.Name, ':')
	if i.Name == "" || colon <= slash {
		return fmt.Errorf("image name %q has no tag; use NAME:TAG", i.Name)
	}
	if strings.HasSuffix(i.Name, ":latest") {
		return errors.New("tag latest makes Kubernetes pull the image from a registry; use another tag")
	}
	if len(i.Entrypoint) == 0 {
		return errors.New("the image has no entrypoint")
	}
	return nil
}

func writeLayer(content tree, path string) (digest string, err error) {
	file, err := os.Create(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	sum := sha256.New()
	if err := content.write(io.MultiWriter(file, sum)); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), file.Close()
}

func (i Image) configuration(layerDigest string) object {
	return object{
		"created":      created,
		"architecture": runtime.GOARCH,
		"os":           "linux",
		"config": object{
			"User":       fmt.Sprintf("%d:%d", User, User),
			"Env":        append([]string{"PATH=/bin:/usr/bin", "HOME=/home/nonroot"}, i.Environment...),
			"Entrypoint": i.Entrypoint,
			"WorkingDir": "/",
		},
		"rootfs":  object{"type": "layers", "diff_ids": []string{"sha256:" + layerDigest}},
		"history": []object{{"created": created, "created_by": "atomix cluster image"}},
	}
}

// writeArchive lays out blobs and both tables of contents: index.json for OCI
// readers, manifest.json for Docker.
func writeArchive(image Image, layer, layerDigest, path string) error {
	layerInfo, err := os.Stat(layer)
	if err != nil {
		return err
	}
	config, err := json.Marshal(image.configuration(layerDigest))
	if err != nil {
		return err
	}
	manifest, err := json.Marshal(object{
		"schemaVersion": 2,
		"mediaType":     manifestType,
		"config":        object{"mediaType": configType, "digest": digestOf(config), "size": len(config)},
		"layers":        []object{{"mediaType": layerType, "digest": "sha256:" + layerDigest, "size": layerInfo.Size()}},
	})
	if err != nil {
		return err
	}
	reference := fullReference(image.Name)
	index, err := json.Marshal(object{
		"schemaVersion": 2,
		"mediaType":     indexType,
		"manifests": []object{{
			"mediaType": manifestType, "digest": digestOf(manifest), "size": len(manifest),
			"platform": object{"architecture": runtime.GOARCH, "os": "linux"},
			"annotations": object{
				"io.containerd.image.name":          reference,
				"org.opencontainers.image.ref.name": reference[strings.LastIndexByte(reference, ':')+1:],
			},
		}},
	})
	if err != nil {
		return err
	}
	docker, err := json.Marshal([]object{{
		"Config":   blobPath(digestOf(config)),
		"RepoTags": []string{image.Name},
		"Layers":   []string{blobPath("sha256:" + layerDigest)},
	}})
	if err != nil {
		return err
	}

	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	archive := tar.NewWriter(file)
	small := []struct {
		name    string
		content []byte
	}{
		{"oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)},
		{"index.json", index},
		{"manifest.json", docker},
		{blobPath(digestOf(manifest)), manifest},
		{blobPath(digestOf(config)), config},
	}
	for _, item := range small {
		if err := writeEntry(archive, item.name, entry{mode: 0o644, content: item.content}); err != nil {
			return err
		}
	}
	if err := writeEntry(archive, blobPath("sha256:"+layerDigest), entry{mode: 0o644, source: layer}); err != nil {
		return err
	}
	return errors.Join(archive.Close(), file.Close())
}

// fullReference spells a short name out as container runtimes do.
func fullReference(name string) string {
	domain, _, hasSlash := strings.Cut(name, "/")
	switch {
	case !hasSlash:
		return "docker.io/library/" + name
	case strings.ContainsAny(domain, ".:") || domain == "localhost":
		return name
	default:
		return "docker.io/" + name
	}
}

func digestOf(content []byte) string {
	return fmt.Sprintf("sha256:%x", sha256.Sum256(content))
}

func blobPath(digest string) string {
	return "blobs/sha256/" + strings.TrimPrefix(digest, "sha256:")
}
