// Package cluster brings a whole cluster up and takes it down again.
package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"atomix.io/cluster/internal/addons"
	"atomix.io/cluster/internal/cgroups"
	"atomix.io/cluster/internal/controlplane"
	"atomix.io/cluster/internal/instance"
	"atomix.io/cluster/internal/mounts"
	"atomix.io/cluster/internal/network"
	"atomix.io/cluster/internal/node"
	"atomix.io/cluster/internal/process"
	"atomix.io/cluster/internal/records"
	"atomix.io/cluster/internal/step"
)

// ProvisionCommand is the hidden command that runs the volume provisioner.
const ProvisionCommand = "provision"

// Request is what the user asks for.
type Request struct {
	Name               string
	Nodes              int
	ControlPlaneOnly   bool
	APIServerArguments []string
	// Kubeconfig is the file to write.
	Kubeconfig string
	// Binaries is the folder that holds all programs.
	Binaries string
}

// Check says what is wrong with the request, if anything.
func (r Request) Check() error {
	if err := instance.CheckName(r.Name); err != nil {
		return err
	}
	if r.Nodes < 1 || r.Nodes > instance.MaximumNodes {
		return fmt.Errorf("%d nodes are not possible; use 1 to %d", r.Nodes, instance.MaximumNodes)
	}
	return controlplane.CheckArguments(r.APIServerArguments)
}

// Up starts the cluster, leaves a healthy one alone, and replaces a dead one.
func Up(ctx context.Context, request Request, printer *step.Printer) error {
	if err := request.Check(); err != nil {
		return err
	}
	lock, err := records.Acquire(request.Name)
	if err != nil {
		return err
	}
	defer lock.Release()

	old, found, err := records.ReadInstance(request.Name)
	if err != nil {
		return err
	}
	if found {
		illness := Examine(ctx, old)
		if illness == nil {
			return leaveAlone(old, request, printer)
		}
		printer.Note("cluster %s is dead (%s); it is removed and started anew", old.Name, illness)
		if err := remove(old, printer); err != nil {
			return err
		}
	}
	cluster, err := reserve(request)
	if err != nil {
		return err
	}
	if err := start(ctx, cluster, request.Binaries, printer); err != nil {
		return fmt.Errorf("%w\nlogs are in %s; `cluster down --name %s` removes what was started", err, cluster.LogFolder(), cluster.Name)
	}
	printer.Note("cluster %s runs after %.1fs; kubeconfig: %s", cluster.Name, printer.Total().Seconds(), cluster.Kubeconfig)
	return nil
}

// leaveAlone accepts the running cluster if it is what was asked for.
func leaveAlone(running instance.Instance, request Request, printer *step.Printer) error {
	same := running.ControlPlaneOnly == request.ControlPlaneOnly &&
		(request.ControlPlaneOnly || running.Nodes == request.Nodes) &&
		slices.Equal(running.APIServerArguments, request.APIServerArguments)
	if !same {
		return fmt.Errorf("cluster %s runs already, but with other options (%s); run `cluster down --name %s` first", running.Name, describe(running), running.Name)
	}
	if running.Kubeconfig != request.Kubeconfig {
		if err := removeKubeconfig(running); err != nil {
			return err
		}
		running.Kubeconfig = request.Kubeconfig
		if err := records.WriteInstance(running); err != nil {
			return err
		}
	}
	if err := writeKubeconfig(running); err != nil {
		return err
	}
	printer.Note("cluster %s runs already (%s); kubeconfig: %s", running.Name, describe(running), running.Kubeconfig)
	return nil
}

func describe(cluster instance.Instance) string {
	if cluster.ControlPlaneOnly {
		return "control plane only"
	}
	text := fmt.Sprintf("%d nodes", cluster.Nodes)
	if cluster.Nodes == 1 {
		text = "1 node"
	}
	if stopped := len(cluster.StoppedNodes); stopped > 0 {
		text += fmt.Sprintf(", %d stopped", stopped)
	}
	return text
}

// reserve picks addresses and records them, so that no other start picks the same.
func reserve(request Request) (instance.Instance, error) {
	lock, err := records.Acquire("")
	if err != nil {
		return instance.Instance{}, err
	}
	defer lock.Release()
	others, err := records.AllInstances()
	if err != nil {
		return instance.Instance{}, err
	}
	var taken []instance.Slot
	for _, other := range others {
		taken = append(taken, other.Slot)
	}
	routed, err := network.Routed()
	if err != nil {
		return instance.Instance{}, err
	}
	slot, err := network.ChooseSlot(taken, routed)
	if err != nil {
		return instance.Instance{}, err
	}
	boot, err := records.BootID()
	if err != nil {
		return instance.Instance{}, err
	}
	cluster := instance.Instance{
		Name:               request.Name,
		Slot:               slot,
		Nodes:              request.Nodes,
		ControlPlaneOnly:   request.ControlPlaneOnly,
		APIServerArguments: request.APIServerArguments,
		Kubeconfig:         request.Kubeconfig,
		Boot:               boot,
	}
	if err := records.SaveMachine(); err != nil {
		return instance.Instance{}, err
	}
	return cluster, records.WriteInstance(cluster)
}

func start(ctx context.Context, cluster instance.Instance, binaries string, printer *step.Printer) error {
	err := printer.Do("certificates, cgroups, network", func() error { return prepare(cluster) })
	if err != nil {
		return err
	}
	err = printer.Do("etcd, API server", func() error {
		if err := controlplane.StartStore(cluster, binaries); err != nil {
			return err
		}
		if err := controlplane.StartAPIServer(cluster, binaries); err != nil {
			return err
		}
		return waitForAPI(ctx, cluster)
	})
	if err != nil {
		return err
	}
	if err := writeKubeconfig(cluster); err != nil {
		return err
	}
	// The controller manager takes seconds to begin its work; nothing before the
	// first pod waits for it.
	if err := controlplane.StartControllerManager(cluster, binaries); err != nil {
		return err
	}
	if err := addons.ApplyStorageClass(ctx, binaries, cluster.Kubeconfig); err != nil {
		return err
	}
	if !cluster.ControlPlaneOnly {
		if err := startNodes(ctx, cluster, binaries, printer); err != nil {
			return err
		}
	}
	err = printer.Do("controllers work", func() error { return waitForServiceAccount(ctx, cluster) })
	if err != nil {
		return err
	}
	return records.MarkReady(cluster)
}

// prepare makes everything that processes stand on.
func prepare(cluster instance.Instance) error {
	// A data folder without records is what a restart of the machine leaves.
	if err := mounts.UnmountBelow(cluster.DataFolder()); err != nil {
		return err
	}
	if err := os.RemoveAll(cluster.DataFolder()); err != nil {
		return err
	}
	if err := os.MkdirAll(cluster.LogFolder(), 0o755); err != nil {
		return err
	}
	authority, err := controlplane.IssueCertificates(cluster)
	if err != nil {
		return err
	}
	if err := node.IssueCertificates(cluster, authority); err != nil {
		return err
	}
	if err := cgroups.Make(cluster.ProcessCgroup()); err != nil {
		return err
	}
	return network.Make(cluster)
}

func startNodes(ctx context.Context, cluster instance.Instance, binaries string, printer *step.Printer) error {
	err := printer.Do("scheduler, volume provisioner, containerd, images", func() error {
		if err := controlplane.StartScheduler(cluster, binaries); err != nil {
			return err
		}
		if err := startProvisioner(cluster); err != nil {
			return err
		}
		images, err := addons.BuildImages(cluster, binaries)
		if err != nil {
			return err
		}
		for _, number := range cluster.NodeNumbers() {
			if err := node.StartRuntime(cluster, number, binaries); err != nil {
				return err
			}
		}
		return importAll(ctx, cluster, binaries, images)
	})
	if err != nil {
		return err
	}
	err = printer.Do("kubelets, kube-proxies: nodes are ready", func() error {
		for _, number := range cluster.NodeNumbers() {
			if err := node.StartAgents(cluster, number, binaries); err != nil {
				return err
			}
		}
		if err := addons.ApplyDNS(ctx, cluster, binaries, cluster.Kubeconfig); err != nil {
			return err
		}
		return waitForNodes(ctx, cluster)
	})
	if err != nil {
		return err
	}
	return printer.Do("CoreDNS answers", func() error { return waitForDNS(ctx, cluster) })
}

func startProvisioner(cluster instance.Instance) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return process.Start(cluster, process.Spec{
		Name:      "volume-provisioner",
		Namespace: cluster.ControlNamespace(),
		Program:   self,
		Arguments: []string{ProvisionCommand, cluster.Name},
	})
}

// Load imports image files into every node of a running cluster.
func Load(ctx context.Context, name, binaries string, files []string) error {
	cluster, found, err := records.ReadInstance(name)
	if err != nil {
		return err
	}
	if !found {
		return fmt.Errorf("there is no cluster %s; start it with `cluster up --name %s`", name, name)
	}
	if cluster.ControlPlaneOnly {
		return fmt.Errorf("cluster %s has no nodes to load images into", name)
	}
	if len(cluster.StoppedNodes) > 0 {
		stopped := cluster.StoppedNodes[0].Name()
		return fmt.Errorf("%s is stopped and would miss the images; run `cluster node start %s --name %s` first", stopped, stopped, name)
	}
	return importAll(ctx, cluster, binaries, files)
}

func importAll(ctx context.Context, cluster instance.Instance, binaries string, files []string) error {
	failures := make(chan error)
	for _, number := range cluster.NodeNumbers() {
		go func() { failures <- node.Import(ctx, cluster, number, binaries, files) }()
	}
	var all []error
	for range cluster.NodeNumbers() {
		all = append(all, <-failures)
	}
	return errors.Join(all...)
}

func writeKubeconfig(cluster instance.Instance) error {
	content, err := controlplane.AdminKubeconfig(cluster)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(cluster.Kubeconfig), 0o755); err != nil {
		return err
	}
	present, err := os.ReadFile(cluster.Kubeconfig)
	if err == nil && bytes.Equal(present, content) {
		return nil
	}
	return os.WriteFile(cluster.Kubeconfig, content, 0o600)
}

// removeKubeconfig leaves a file alone that was changed or belongs to another cluster.
func removeKubeconfig(cluster instance.Instance) error {
	content, err := controlplane.AdminKubeconfig(cluster)
	if err != nil {
		return nil // The certificates are gone, so nothing can be compared.
	}
	present, err := os.ReadFile(cluster.Kubeconfig)
	if err != nil || !bytes.Equal(present, content) {
		return nil
	}
	return os.Remove(cluster.Kubeconfig)
}
