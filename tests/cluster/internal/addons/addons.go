// Package addons applies the objects that make a bare API server a usable
// cluster: CoreDNS and the default storage class.
package addons

import (
	"bytes"
	"context"
	"embed"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"text/template"

	"atomix.io/cluster/internal/image"
	"atomix.io/cluster/internal/instance"
	"atomix.io/cluster/internal/node"
	"atomix.io/cluster/internal/storage"
)

// DNSImage is the image of CoreDNS.
const DNSImage = "atomix.local/coredns:1"

//go:embed *.yaml
var manifests embed.FS

// BuildImages makes the images that every node needs and returns their files.
func BuildImages(cluster instance.Instance, binaries string) ([]string, error) {
	programs := []struct{ name, program string }{
		{node.PauseImage, "pause"},
		{DNSImage, "coredns"},
	}
	var files []string
	for _, item := range programs {
		source, err := filepath.EvalSymlinks(filepath.Join(binaries, item.program))
		if err != nil {
			return nil, err
		}
		file := filepath.Join(cluster.DataFolder(), item.program+".tar")
		err = image.Build(image.Image{
			Name:       item.name,
			Entrypoint: []string{"/bin/" + item.program},
			Files:      []image.File{{Source: source, Destination: "/bin/" + item.program}},
		}, file)
		if err != nil {
			return nil, err
		}
		files = append(files, file)
	}
	return files, nil
}

// ApplyStorageClass makes the default storage class.
func ApplyStorageClass(ctx context.Context, binaries, kubeconfig string) error {
	return apply(ctx, binaries, kubeconfig, "storage.yaml", map[string]any{
		"StorageClass": "local",
		"Provisioner":  storage.Provisioner,
	})
}

// ApplyDNS makes CoreDNS, one replica on each of the first two nodes.
func ApplyDNS(ctx context.Context, cluster instance.Instance, binaries, kubeconfig string) error {
	return apply(ctx, binaries, kubeconfig, "coredns.yaml", map[string]any{
		"Replicas": min(2, cluster.Nodes),
		"Image":    DNSImage,
		"Address":  cluster.DNSServiceAddress(),
	})
}

func apply(ctx context.Context, binaries, kubeconfig, manifest string, values map[string]any) error {
	parsed, err := template.ParseFS(manifests, manifest)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	if err := parsed.Execute(&text, values); err != nil {
		return err
	}
	command := exec.CommandContext(ctx, filepath.Join(binaries, "kubectl"),
		"--kubeconfig", kubeconfig, "apply", "--validate=false", "-f", "-")
	command.Stdin = &text
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("apply %s: %w: %s", manifest, err, strings.TrimSpace(string(output)))
	}
	return nil
}
