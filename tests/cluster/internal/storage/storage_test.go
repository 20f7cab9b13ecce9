package storage

import (
	"context"
	"os"
	"path/filepath"
	"testing"
)

func TestFolderOutsideOfTheNodesVolumesIsNeverWiped(t *testing.T) {
	base := t.TempDir()
	root := filepath.Join(base, "node-1", "volumes")
	precious := filepath.Join(base, "precious", "x", "data")
	for _, folder := range []string{root, precious} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	service := Service{VolumeFolder: func(string) (string, error) { return root, nil }}
	for _, path := range []string{precious, root, root + "/../../precious/x/data", root + "/"} {
		volume := releasedVolume()
		volume.Spec.Local.Path = path
		if err := service.remove(context.Background(), volume); err == nil {
			t.Errorf("%s was wiped", path)
		}
	}
	for _, folder := range []string{root, precious} {
		if _, err := os.Stat(folder); err != nil {
			t.Error(err)
		}
	}
}
