// Program pause does nothing until it is told to end. The container runtime
// starts it first in every pod to hold the pod's namespaces open. In a pod that
// shares its process namespace it is process 1 and reaps orphans.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGCHLD)
	for received := range signals {
		if received != syscall.SIGCHLD {
			return
		}
		reapOrphans()
	}
}

func reapOrphans() {
	for {
		process, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		if process <= 0 || err != nil {
			return
		}
	}
}
