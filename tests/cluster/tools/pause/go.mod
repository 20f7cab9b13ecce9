// The program of the sandbox image, which holds a pod's namespaces open.
module atomix.io/cluster-tools/pause

go 1.26.0
