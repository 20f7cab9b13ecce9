//! Names that the operator reads or writes in object metadata.

/// On every storage pod and its parts: the name of its Store.
pub const STORE: &str = "atomix.io/store";
/// On every application pod with a runtime sidecar: `"true"`.
pub const RUNTIME: &str = "atomix.io/runtime";
/// Annotation of a Store: the one operator that is to manage it, as `NAMESPACE/NAME` of its Lease.
/// Without it, the first operator that its nodes met does.
pub const OPERATOR: &str = "atomix.io/operator";
/// Beginning of the annotations of a Store that make one member of a partition, whose quorum is lost
/// for good, the only one: `recover.atomix.io/partition-N: POD MEMBER`.
pub const RECOVER_PREFIX: &str = "recover.atomix.io/partition-";
/// Finalizer of a Store: it stays while Sessions of its namespace use it.
pub const STORE_FINALIZER: &str = "atomix.io/store-in-use";
/// Finalizer of a Session: its pods are disconnected first.
pub const SESSION_FINALIZER: &str = "atomix.io/disconnect";
/// Finalizer of a Driver: it stays while a Store uses it.
pub const DRIVER_FINALIZER: &str = "atomix.io/in-use";
/// On a Secret or ConfigMap that Stores name in configFrom: `"true"`.
pub const CONFIG: &str = "atomix.io/config";
/// On a pod that is to get a runtime sidecar when it is created: `"true"`.
pub const INJECT: &str = "atomix.io/inject";
/// Annotation of such a pod; `"false"` = it is ready also while its runtime is not connected.
pub const READINESS_GATE: &str = "atomix.io/readiness-gate";
/// Condition of a pod, and its readiness gate: the runtime reaches every Store that it should.
pub const CONNECTED: &str = "atomix.io/connected";
/// Condition of a storage pod, and its readiness gate: every partition that has a copy on its disk
/// counts that copy as a voter that has caught up.
pub const REPLICATED: &str = "atomix.io/replicated";
