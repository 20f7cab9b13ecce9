// Package node starts the programs of a worker node (containerd, kubelet,
// kube-proxy) inside the node's network namespace, and imports images.
package node

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"atomix.io/cluster/internal/certificates"
	"atomix.io/cluster/internal/cgroups"
	"atomix.io/cluster/internal/controlplane"
	"atomix.io/cluster/internal/instance"
	"atomix.io/cluster/internal/packages"
	"atomix.io/cluster/internal/process"
)

// IssueCertificates makes what the nodes need to speak to the API server.
func IssueCertificates(cluster instance.Instance, authority *certificates.Authority) error {
	proxy, err := authority.Issue(certificates.Request{File: "kube-proxy", User: "system:kube-proxy"})
	if err != nil {
		return err
	}
	if err := controlplane.WriteKubeconfig(cluster, authority.Files("ca"), proxy, proxyKubeconfig(cluster)); err != nil {
		return err
	}
	for _, node := range cluster.NodeNumbers() {
		own, err := authority.Issue(certificates.Request{
			File:      node.Name(),
			User:      "system:node:" + node.Name(),
			Groups:    []string{"system:nodes"},
			Names:     []string{node.Name()},
			Addresses: []netip.Addr{cluster.NodeAddress(node)},
		})
		if err != nil {
			return err
		}
		if err := controlplane.WriteKubeconfig(cluster, authority.Files("ca"), own, kubeletKubeconfig(cluster, node)); err != nil {
			return err
		}
	}
	return nil
}

// StartRuntime starts containerd and waits until it answers.
func StartRuntime(cluster instance.Instance, node instance.NodeNumber, binaries string) error {
	runc, err := packages.Runc()
	if err != nil {
		return err
	}
	for _, folder := range []string{cluster.NodeRecordsFolder(node), cniFolder(cluster, node), cluster.VolumeFolder(node)} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return err
		}
	}
	snapshotter, err := chooseSnapshotter(cluster.NodeDataFolder(node))
	if err != nil {
		return err
	}
	configuration := filepath.Join(cluster.NodeDataFolder(node), "containerd.toml")
	content := renderContainerd(cluster, node, binaries, runc, snapshotter)
	if err := os.WriteFile(configuration, []byte(content), 0o644); err != nil {
		return err
	}
	network, err := renderNetwork(cluster, node)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(cniFolder(cluster, node), "10-pods.conflist"), network, 0o644); err != nil {
		return err
	}
	err = process.Start(cluster, process.Spec{
		Name:      node.Name() + ".containerd",
		Namespace: cluster.NodeNamespace(node),
		Program:   filepath.Join(binaries, "containerd"),
		Arguments: []string{"--config", configuration, "--log-level", "warn"},
	})
	if err != nil {
		return err
	}
	return waitForSocket(cluster.ContainerdSocket(node), 30*time.Second)
}

// StartAgents starts kubelet and kube-proxy.
func StartAgents(cluster instance.Instance, node instance.NodeNumber, binaries string) error {
	if err := cgroups.Make(cluster.NodeCgroup(node)); err != nil {
		return err
	}
	data, folder := cluster.NodeDataFolder(node), cluster.CertificateFolder()
	configuration, err := renderKubelet(cluster, node, certificates.FilesIn(folder, "ca"), certificates.FilesIn(folder, node.Name()))
	if err != nil {
		return err
	}
	files := map[string][]byte{
		"kubelet.json": configuration,
		// Pods that do not use the cluster's DNS get no name server: nothing
		// here depends on the world outside.
		"resolv.conf": []byte("options timeout:1\n"),
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(data, name), content, 0o644); err != nil {
			return err
		}
	}
	err = process.Start(cluster, process.Spec{
		Name:      node.Name() + ".kubelet",
		Namespace: cluster.NodeNamespace(node),
		Program:   filepath.Join(binaries, "kubelet"),
		Arguments: []string{
			"--config=" + filepath.Join(data, "kubelet.json"),
			"--root-dir=" + filepath.Join(data, "kubelet"),
			"--kubeconfig=" + kubeletKubeconfig(cluster, node),
			"--hostname-override=" + node.Name(),
			"--node-ip=" + cluster.NodeAddress(node).String(),
		},
	})
	if err != nil {
		return err
	}
	return process.Start(cluster, process.Spec{
		Name:      node.Name() + ".kube-proxy",
		Namespace: cluster.NodeNamespace(node),
		Program:   filepath.Join(binaries, "kube-proxy"),
		Arguments: []string{
			"--kubeconfig=" + proxyKubeconfig(cluster),
			"--hostname-override=" + node.Name(),
			"--proxy-mode=nftables",
			"--cluster-cidr=" + cluster.PodNetwork().String(),
			// The table of connections belongs to the machine.
			"--conntrack-max-per-core=0",
		},
	})
}

// Import loads image files into the node's containerd.
func Import(ctx context.Context, cluster instance.Instance, node instance.NodeNumber, binaries string, files []string) error {
	snapshotter, err := chooseSnapshotter(cluster.NodeDataFolder(node))
	if err != nil {
		return err
	}
	for _, file := range files {
		command := exec.CommandContext(ctx, filepath.Join(binaries, "ctr"),
			"--address", cluster.ContainerdSocket(node), "--namespace", "k8s.io",
			"images", "import", "--local", "--snapshotter", snapshotter, file)
		if output, err := command.CombinedOutput(); err != nil {
			return fmt.Errorf("import %s on %s: %w: %s", file, node.Name(), err, strings.TrimSpace(string(output)))
		}
	}
	return nil
}

// chooseSnapshotter avoids overlayfs where the folder itself lies on it, as it
// does inside most containers: the kernel refuses to stack it.
func chooseSnapshotter(folder string) (string, error) {
	var stat syscall.Statfs_t
	if err := syscall.Statfs(folder, &stat); err != nil {
		return "", err
	}
	const overlayMagic = 0x794c7630
	if stat.Type == overlayMagic {
		return "native", nil
	}
	return "overlayfs", nil
}

func waitForSocket(path string, patience time.Duration) error {
	deadline := time.Now().Add(patience)
	for {
		connection, err := net.Dial("unix", path)
		if err == nil {
			return connection.Close()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("nothing listens at %s after %s: %w", path, patience, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func kubeletKubeconfig(cluster instance.Instance, node instance.NodeNumber) string {
	return filepath.Join(cluster.CertificateFolder(), node.Name()+".kubeconfig")
}

func proxyKubeconfig(cluster instance.Instance) string {
	return filepath.Join(cluster.CertificateFolder(), "kube-proxy.kubeconfig")
}
