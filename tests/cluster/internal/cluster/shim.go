package cluster

import (
	"encoding/json"
	"os"
	"strings"
)

// readShimSocket reads the address that a shim wrote for containerd.
func readShimSocket(bootstrap string) (path string, ok bool) {
	content, err := os.ReadFile(bootstrap)
	if err != nil {
		return "", false
	}
	var shim struct {
		Address string `json:"address"`
	}
	if err := json.Unmarshal(content, &shim); err != nil {
		return "", false
	}
	return strings.CutPrefix(shim.Address, "unix://")
}
