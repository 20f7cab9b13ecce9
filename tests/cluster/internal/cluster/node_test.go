package cluster

import (
	"testing"

	"atomix.io/cluster/internal/records"
)

func TestProcessIsOfTheNodeThatItsNameBeginsWith(t *testing.T) {
	for name, expected := range map[string]bool{
		"node-2.kubelet":    true,
		"node-2.containerd": true,
		"node-20.kubelet":   false,
		"node-1.kubelet":    false,
		"node-2":            false,
		"etcd":              false,
	} {
		if isOf(records.Process{Name: name}, 2) != expected {
			t.Errorf("%s of node-2: not %t", name, expected)
		}
	}
}
