// A real Kubernetes cluster on one Linux machine, for the project's tests and demo.
module atomix.io/cluster

go 1.26.0
