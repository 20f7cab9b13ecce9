package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"atomix.io/cluster/internal/cgroups"
	"atomix.io/cluster/internal/instance"
	"atomix.io/cluster/internal/mounts"
	"atomix.io/cluster/internal/network"
	"atomix.io/cluster/internal/records"
	"atomix.io/cluster/internal/step"
)

// Down removes the cluster of that name; one that does not exist is no error.
func Down(name string, printer *step.Printer) error {
	if err := instance.CheckName(name); err != nil {
		return err
	}
	lock, err := records.Acquire(name)
	if err != nil {
		return err
	}
	defer lock.Release()
	cluster, found, err := records.ReadInstance(name)
	if err != nil {
		return err
	}
	if !found {
		printer.Note("there is no cluster %s", name)
	} else if err := remove(cluster, printer); err != nil {
		return err
	}
	lock.Discard()
	return removeSharedRecords()
}

// DownAllDead removes every cluster of this machine that does not run.
func DownAllDead(ctx context.Context, printer *step.Printer) error {
	clusters, err := records.AllInstances()
	if err != nil {
		return err
	}
	var failures []error
	for _, cluster := range clusters {
		failures = append(failures, downIfDead(ctx, cluster.Name, printer))
	}
	return errors.Join(failures...)
}

// downIfDead reads the cluster again under its lock: it may just have started.
func downIfDead(ctx context.Context, name string, printer *step.Printer) error {
	lock, err := records.Acquire(name)
	if err != nil {
		return err
	}
	defer lock.Release()
	cluster, found, err := records.ReadInstance(name)
	if err != nil {
		return err
	}
	if !found {
		lock.Discard()
		return nil
	}
	illness := Examine(ctx, cluster)
	if illness == nil {
		printer.Note("cluster %s runs and is left alone", name)
		return nil
	}
	printer.Note("cluster %s is dead: %s", name, illness)
	if err := remove(cluster, printer); err != nil {
		return err
	}
	lock.Discard()
	return removeSharedRecords()
}

// remove takes everything away in the order in which things hold each other: a
// process holds mounts, namespaces and cgroups. The records go last, so that a
// removal that was cut short can be repeated.
func remove(cluster instance.Instance, printer *step.Printer) error {
	return printer.Do("remove cluster "+cluster.Name, func() error {
		if err := endProcesses(cluster); err != nil {
			return err
		}
		if err := removeKubeconfig(cluster); err != nil {
			return err
		}
		removeShimSockets(cluster)
		for _, folder := range []string{cluster.RecordsFolder(), cluster.DataFolder()} {
			if err := mounts.UnmountBelow(folder); err != nil {
				return err
			}
		}
		if err := network.Remove(cluster); err != nil {
			return err
		}
		if err := removeCgroup(cluster.Cgroup()); err != nil {
			return err
		}
		if err := removeStrayFiles(cluster); err != nil {
			return err
		}
		if err := os.RemoveAll(cluster.DataFolder()); err != nil {
			return err
		}
		_ = os.Remove(instance.DataRoot) // Succeeds only when no other cluster is left.
		return os.RemoveAll(cluster.RecordsFolder())
	})
}

// endProcesses ends the recorded processes first, so that nothing starts pods
// anew, then whatever is left in the cluster's cgroups: pods and their shims.
func endProcesses(cluster instance.Instance) error {
	processes, err := records.Processes(cluster)
	if err != nil {
		return err
	}
	for _, recorded := range processes {
		if err := recorded.Kill(); err != nil {
			return err
		}
	}
	deadline := time.Now().Add(20 * time.Second)
	for {
		remaining, err := killMembers(cluster)
		if err != nil {
			return err
		}
		if remaining == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d processes in cgroup %s survive being killed", remaining, cluster.Cgroup())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// killMembers kills each process of the cgroup and counts those that were alive.
func killMembers(cluster instance.Instance) (int, error) {
	ids, err := cgroups.Processes(cluster.Cgroup())
	if err != nil {
		return 0, err
	}
	alive := 0
	for _, id := range ids {
		member, err := records.Identify("member", id)
		if err != nil || !member.Lives() {
			continue
		}
		// Its identity was read after the list: it must still be a member.
		if !cgroups.IsMember(id, cluster.Cgroup()) {
			continue
		}
		alive++
		if err := member.Kill(); err != nil {
			return alive, err
		}
	}
	return alive, nil
}

// removeCgroup repeats while the kernel still takes the last processes apart.
func removeCgroup(path string) error {
	deadline := time.Now().Add(10 * time.Second)
	for {
		err := cgroups.Remove(path)
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// removeShimSockets removes the sockets of shims that were killed. containerd
// keeps them in a folder of all containerds, under names that only the shims'
// own records tell.
func removeShimSockets(cluster instance.Instance) {
	for _, node := range cluster.NodeNumbers() {
		removeShimSocketsOf(cluster, node)
	}
}

func removeShimSocketsOf(cluster instance.Instance, node instance.NodeNumber) {
	pattern := filepath.Join(cluster.NodeRecordsFolder(node), "containerd", "io.containerd.runtime.v2.task", "k8s.io", "*", "bootstrap.json")
	bootstraps, err := filepath.Glob(pattern)
	if err != nil {
		return // Only a malformed pattern fails.
	}
	for _, bootstrap := range bootstraps {
		if socket, ok := readShimSocket(bootstrap); ok {
			_ = os.Remove(socket)
		}
	}
}

// removeStrayFiles removes what kubelet and CNI put into folders that the
// machine's clusters share.
func removeStrayFiles(cluster instance.Instance) error {
	for _, node := range cluster.NodeNumbers() {
		results, err := filepath.Glob(filepath.Join("/var/lib/cni/results", cluster.CNINetwork(node)+"-*"))
		if err != nil {
			return err
		}
		for _, result := range results {
			if err := os.Remove(result); err != nil {
				return err
			}
		}
	}
	links, err := filepath.Glob("/var/log/containers/*")
	if err != nil {
		return err
	}
	for _, link := range links {
		target, err := os.Readlink(link)
		if err != nil || !strings.HasPrefix(target, cluster.DataFolder()+"/") {
			continue
		}
		if err := os.Remove(link); err != nil {
			return err
		}
	}
	return nil
}

// removeSharedRecords undoes what clusters changed for the whole machine, once
// none is left.
func removeSharedRecords() error {
	lock, err := records.Acquire("")
	if err != nil {
		return err
	}
	defer lock.Release()
	remaining, err := records.AllInstances()
	if err != nil || len(remaining) > 0 {
		return err
	}
	if err := records.RestoreMachine(); err != nil {
		return err
	}
	lock.Discard()
	_ = os.Remove(instance.RecordsRoot) // Stays while a start of another cluster waits in it.
	return nil
}
