// Checks recorded histories of the application API for linearizability.
module atomix.io/porcupine

go 1.26.0

require github.com/anishathalye/porcupine v1.3.1
