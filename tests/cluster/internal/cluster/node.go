package cluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"atomix.io/cluster/internal/cgroups"
	"atomix.io/cluster/internal/instance"
	"atomix.io/cluster/internal/mounts"
	"atomix.io/cluster/internal/network"
	"atomix.io/cluster/internal/node"
	"atomix.io/cluster/internal/records"
	"atomix.io/cluster/internal/step"
)

// StopNode ends the node as a power failure would: its network first, so that
// nobody gets as much as a refusal from it, then every process that runs there.
// Unlike a power failure it loses nothing that was written but not yet synced.
func StopNode(name, nodeName string, printer *step.Printer) error {
	return withNode(name, nodeName, func(cluster instance.Instance, number instance.NodeNumber) error {
		if cluster.IsStopped(number) {
			printer.Note("%s is stopped already", nodeName)
			return nil
		}
		return printer.Do("stop "+nodeName, func() error {
			// Recorded first: a stop that was cut short is no dead cluster, and can be undone by a start.
			if err := records.WriteInstance(cluster.WithPower(number, false)); err != nil {
				return err
			}
			if err := network.Unplug(cluster, number); err != nil {
				return err
			}
			return endNode(cluster, number)
		})
	})
}

// StartNode brings a stopped node back with its disks and nothing else, as a
// machine that boots.
func StartNode(ctx context.Context, name, nodeName, binaries string, printer *step.Printer) error {
	return withNode(name, nodeName, func(cluster instance.Instance, number instance.NodeNumber) error {
		if !cluster.IsStopped(number) {
			printer.Note("%s runs already", nodeName)
			return nil
		}
		return printer.Do("start "+nodeName, func() error {
			if err := endNode(cluster, number); err != nil {
				return err
			}
			if err := forgetMemory(cluster, number); err != nil {
				return err
			}
			if err := network.Plug(cluster, number); err != nil {
				return err
			}
			if err := node.StartRuntime(cluster, number, binaries); err != nil {
				return err
			}
			if err := node.StartAgents(cluster, number, binaries); err != nil {
				return err
			}
			return records.WriteInstance(cluster.WithPower(number, true))
		})
	})
}

// CutNode takes the node's network away while all its processes run on.
func CutNode(name, nodeName string, fromNodes bool, printer *step.Printer) error {
	return withNode(name, nodeName, func(cluster instance.Instance, number instance.NodeNumber) error {
		if fromNodes {
			return printer.Do("cut "+nodeName+" from the other nodes", func() error {
				return network.CutFromNodes(cluster, number)
			})
		}
		return printer.Do("cut "+nodeName, func() error { return network.Unplug(cluster, number) })
	})
}

// HealNode undoes every cut.
func HealNode(name, nodeName string, printer *step.Printer) error {
	return withNode(name, nodeName, func(cluster instance.Instance, number instance.NodeNumber) error {
		if cluster.IsStopped(number) {
			return fmt.Errorf("%s is stopped; `cluster node start %s --name %s` starts it", nodeName, nodeName, name)
		}
		return printer.Do("heal "+nodeName, func() error { return network.Heal(cluster, number) })
	})
}

// withNode holds the cluster's lock meanwhile.
func withNode(name, nodeName string, action func(instance.Instance, instance.NodeNumber) error) error {
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
		lock.Discard()
		return fmt.Errorf("there is no cluster %s; start it with `cluster up --name %s`", name, name)
	}
	number, err := cluster.NodeNamed(nodeName)
	if err != nil {
		return err
	}
	return action(cluster, number)
}

// endNode kills the node's own programs first, so that nothing starts pods anew,
// then its pods and their shims.
func endNode(cluster instance.Instance, number instance.NodeNumber) error {
	processes, err := records.Processes(cluster)
	if err != nil {
		return err
	}
	for _, recorded := range processes {
		if !isOf(recorded, number) {
			continue
		}
		if err := recorded.Kill(); err != nil {
			return err
		}
		if err := records.RemoveProcess(cluster, recorded); err != nil {
			return err
		}
	}
	deadline := time.Now().Add(20 * time.Second)
	for {
		remaining, err := killNodeMembers(cluster, number)
		if err != nil {
			return err
		}
		if remaining == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d processes of %s survive being killed", remaining, number.Name())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// isOf says whether a recorded process is a program of the node: node-2.kubelet
// is one of node-2, node-20.kubelet is not.
func isOf(process records.Process, number instance.NodeNumber) bool {
	return strings.HasPrefix(process.Name, number.Name()+".")
}

// killNodeMembers kills the pods' processes, which are in the node's cgroup, and
// the shims, which are in its network, and counts those that were alive.
func killNodeMembers(cluster instance.Instance, number instance.NodeNumber) (int, error) {
	home, err := network.NamespaceID(cluster.NodeNamespace(number))
	if err != nil {
		return 0, err
	}
	ids, err := cgroups.Processes(cluster.Cgroup())
	if err != nil {
		return 0, err
	}
	alive := 0
	for _, id := range ids {
		member, err := records.Identify("member of "+number.Name(), id)
		if err != nil || !member.Lives() {
			continue
		}
		// Read after its identity: the very process must belong to this node.
		isShim := cgroups.IsMember(id, cluster.ProcessCgroup()) && network.IsIn(id, home)
		if !isShim && !cgroups.IsMember(id, cluster.NodeCgroup(number)) {
			continue
		}
		alive++
		if err := member.Kill(); err != nil {
			return alive, err
		}
	}
	return alive, nil
}

// forgetMemory removes what a machine that boots has lost: mounts, sockets, what
// containerd and runc keep below /run, pods' addresses and cgroups.
func forgetMemory(cluster instance.Instance, number instance.NodeNumber) error {
	removeShimSocketsOf(cluster, number)
	for _, folder := range []string{cluster.NodeRecordsFolder(number), cluster.NodeDataFolder(number)} {
		if err := mounts.UnmountBelow(folder); err != nil {
			return err
		}
	}
	entries, err := os.ReadDir(cluster.NodeRecordsFolder(number))
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if err := os.RemoveAll(filepath.Join(cluster.NodeRecordsFolder(number), entry.Name())); err != nil {
			return err
		}
	}
	return removeCgroup(cluster.NodeCgroup(number))
}
