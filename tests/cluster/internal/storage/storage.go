// Package storage is the cluster's volume provisioner: it gives a claim a folder
// on the node that the scheduler chose, and removes folder and volume when the
// claim is deleted. Sizes are not enforced and volumes do not grow.
package storage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"atomix.io/cluster/internal/api"
)

const (
	// Provisioner is the name by which storage classes ask for this program.
	Provisioner = "atomix.io/cluster-local"

	provisionedBy = "pv.kubernetes.io/provisioned-by"

	claimsPath  = "/api/v1/persistentvolumeclaims"
	volumesPath = "/api/v1/persistentvolumes"

	// resyncInterval bounds how long a missed event or a failed attempt waits.
	resyncInterval = 5 * time.Second
)

type object = map[string]any

// Service provisions for one cluster.
type Service struct {
	Client *api.Client
	// VolumeFolder is the folder of a node's volumes, for the name of a node.
	VolumeFolder func(node string) (string, error)
}

// Run provisions until the context ends.
func (s Service) Run(ctx context.Context) error {
	changed := make(chan struct{}, 1)
	signal := func() {
		select {
		case changed <- struct{}{}:
		default: // A pass is due already and will see this change, too.
		}
	}
	for _, path := range []string{claimsPath, volumesPath} {
		go s.keepWatching(ctx, path, signal)
	}
	resync := time.NewTicker(resyncInterval)
	defer resync.Stop()
	for {
		if err := s.pass(ctx); err != nil {
			fmt.Fprintln(os.Stderr, time.Now().Format(time.RFC3339), err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-resync.C:
		}
	}
}

func (s Service) keepWatching(ctx context.Context, path string, changed func()) {
	for ctx.Err() == nil {
		if err := s.Client.Watch(ctx, path, changed); err != nil {
			fmt.Fprintln(os.Stderr, time.Now().Format(time.RFC3339), "watch:", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// pass compares all claims with all volumes once and does what is due.
func (s Service) pass(ctx context.Context) error {
	var claims struct {
		Items []claim `json:"items"`
	}
	if err := s.Client.Get(ctx, claimsPath, &claims); err != nil {
		return err
	}
	var volumes struct {
		Items []volume `json:"items"`
	}
	if err := s.Client.Get(ctx, volumesPath, &volumes); err != nil {
		return err
	}
	due := makePlan(claims.Items, volumes.Items)
	var failures []error
	for _, claim := range due.create {
		failures = append(failures, s.create(ctx, claim))
	}
	for _, volume := range due.remove {
		failures = append(failures, s.remove(ctx, volume))
	}
	return errors.Join(failures...)
}

func (s Service) create(ctx context.Context, claim claim) error {
	node := claim.Metadata.Annotations[selectedNode]
	root, err := s.VolumeFolder(node)
	if err != nil {
		return err
	}
	folder := filepath.Join(root, folderName(claim))
	if err := os.MkdirAll(folder, 0o777); err != nil {
		return err
	}
	// Pods that run as any user may write, also where umask took the right away.
	if err := os.Chmod(folder, 0o777); err != nil {
		return err
	}
	err = s.Client.Create(ctx, volumesPath, newVolume(claim, node, folder))
	if api.IsConflict(err) {
		return nil
	}
	return err
}

// remove wipes the folder first: a volume that is gone can no longer tell where
// its folder was.
func (s Service) remove(ctx context.Context, volume volume) error {
	node := filepath.Base(filepath.Dir(filepath.Dir(volume.Spec.Local.Path)))
	root, err := s.VolumeFolder(node)
	if err != nil {
		return err
	}
	folder := volume.Spec.Local.Path
	if !strings.HasPrefix(folder, root+"/") || filepath.Clean(folder) != folder {
		return fmt.Errorf("volume %s names folder %s, which is not below %s; it is left alone", volume.Metadata.Name, folder, root)
	}
	if err := os.RemoveAll(folder); err != nil {
		return err
	}
	return s.Client.Delete(ctx, volumesPath+"/"+volume.Metadata.Name)
}
