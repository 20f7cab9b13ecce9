// Package packages installs the Debian packages that the nodes need and that
// are not built here: the low-level container runtime, the CNI plugins and the
// network programs.
package packages

import (
	"fmt"
	"os"
	"os/exec"
	"strings"

	"atomix.io/cluster/internal/step"
)

// CNIPlugins is where Debian's containernetworking-plugins puts its programs.
const CNIPlugins = "/usr/lib/cni"

type requirement struct {
	packageName string
	// paths are the places of a program of the package; one of them is enough.
	paths []string
}

func requirements() []requirement {
	return []requirement{
		{"runc", []string{"/usr/sbin/runc", "/usr/bin/runc"}},
		{"containernetworking-plugins", []string{CNIPlugins + "/ptp"}},
		{"nftables", []string{"/usr/sbin/nft", "/sbin/nft"}},
		{"iproute2", []string{"/usr/sbin/ip", "/sbin/ip", "/usr/bin/ip"}},
		{"conntrack", []string{"/usr/sbin/conntrack"}},
		{"util-linux", []string{"/usr/bin/nsenter"}},
		{"mount", []string{"/usr/bin/mount", "/bin/mount"}},
	}
}

// Missing lists the Debian packages whose programs are not on this machine.
func Missing() []string {
	var missing []string
	for _, required := range requirements() {
		if !anyExists(required.paths) {
			missing = append(missing, required.packageName)
		}
	}
	return missing
}

// Ensure installs what is missing with apt-get, or says what to install.
func Ensure(printer *step.Printer) error {
	missing := Missing()
	if len(missing) == 0 {
		return nil
	}
	names := strings.Join(missing, " ")
	if _, err := exec.LookPath("apt-get"); err != nil || os.Geteuid() != 0 {
		return fmt.Errorf("these Debian packages are missing: %s; install them as root (apt-get install %s)", names, names)
	}
	return printer.Do("install "+names, func() error {
		if err := aptGet("update", "-qq"); err != nil {
			return err
		}
		return aptGet(append([]string{"install", "-y", "-qq", "--no-install-recommends"}, missing...)...)
	})
}

// Runc is the path of the low-level container runtime.
func Runc() (string, error) {
	for _, path := range requirements()[0].paths {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("runc was not found; install the Debian package runc")
}

func aptGet(arguments ...string) error {
	command := exec.Command("apt-get", arguments...)
	command.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	output, err := command.CombinedOutput()
	if err != nil {
		return fmt.Errorf("apt-get %s: %w\n%s", strings.Join(arguments, " "), err, output)
	}
	return nil
}

func anyExists(paths []string) bool {
	for _, path := range paths {
		if _, err := os.Stat(path); err == nil {
			return true
		}
	}
	return false
}
