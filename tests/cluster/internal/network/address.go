package network

import (
	"fmt"
	"net/netip"
	"slices"

	"atomix.io/cluster/internal/instance"
)

// ChooseSlot picks the first slot that no other cluster has and whose networks
// touch nothing that the machine already routes.
func ChooseSlot(taken []instance.Slot, routed []netip.Prefix) (instance.Slot, error) {
	for slot := instance.Slot(0); slot < instance.Slots; slot++ {
		if !slices.Contains(taken, slot) && !overlaps(slot.Prefixes(), routed) {
			return slot, nil
		}
	}
	return 0, fmt.Errorf("all %d address ranges are taken by other clusters or by this machine's routes; remove a cluster (cluster list, cluster down)", instance.Slots)
}

func overlaps(wanted, routed []netip.Prefix) bool {
	for _, want := range wanted {
		for _, route := range routed {
			if want.Overlaps(route) {
				return true
			}
		}
	}
	return false
}

// parseRoute reads a destination as `ip --json route` prints it. A default route
// overlaps with everything and means nothing here.
func parseRoute(destination string) (netip.Prefix, bool) {
	if destination == "default" {
		return netip.Prefix{}, false
	}
	if prefix, err := netip.ParsePrefix(destination); err == nil {
		return prefix, prefix.Bits() > 0
	}
	address, err := netip.ParseAddr(destination)
	if err != nil {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(address, address.BitLen()), true
}
