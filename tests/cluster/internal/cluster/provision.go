package cluster

import (
	"context"
	"fmt"

	"atomix.io/cluster/internal/instance"
	"atomix.io/cluster/internal/records"
	"atomix.io/cluster/internal/storage"
)

// Provision runs the volume provisioner of the cluster until it is killed.
func Provision(ctx context.Context, name string) error {
	cluster, found, err := records.ReadInstance(name)
	if err != nil {
		return err
	}
	if !found {
		return fmt.Errorf("there is no cluster %s", name)
	}
	client, err := AdminClient(cluster)
	if err != nil {
		return err
	}
	service := storage.Service{
		Client:       client,
		VolumeFolder: func(node string) (string, error) { return volumeFolder(cluster, node) },
	}
	return service.Run(ctx)
}

func volumeFolder(cluster instance.Instance, node string) (string, error) {
	for _, number := range cluster.NodeNumbers() {
		if number.Name() == node {
			return cluster.VolumeFolder(number), nil
		}
	}
	return "", fmt.Errorf("cluster %s has no node %s", cluster.Name, node)
}
