//! The reasons of a Store's conditions, in one place: words that programs and people rely on.
//! Not for the sentences; those are made where the cause is found, in `status` and `pod_trouble`.

use atomix_controller::Category;

/// Why a condition of a Store is as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// Every partition has a leader.
    AllPartitionsReady,
    /// Runtimes have the driver.
    DriverAvailable,
    /// Nothing is left to do.
    AsSpecified,
    /// Nothing is missing.
    FullStrength,
    /// Nobody has to help.
    NotStalled,
    /// A person wants nothing to be changed.
    Paused,
    /// The pods have not answered yet.
    WaitingForNodes,
    /// The plan of an earlier Store of this name is there.
    WaitingForEarlierStore,
    /// Partitions begin.
    Bootstrapping,
    /// Partitions have no leader.
    PartitionsNotReady,
    /// Partitions have lost a majority of their copies for good.
    QuorumLost,
    /// Volumes are smaller than the specification says.
    VolumesNotGrown,
    /// Members are copied to other nodes, by the user's wish.
    MovingMembers,
    /// Members whose disk is gone are made again.
    ReplacingMembers,
    /// Members should move, and cannot now.
    PlacementWaits,
    /// Pods are replaced one at a time, since their settings have changed.
    ReplacingPods,
    /// A pod that was replaced does not come back.
    RollStopped,
    /// A change of the pods would lose data.
    DataLossNotAllowed,
    /// The specification contradicts itself.
    InvalidSpec,
    /// Objects of `spec.configFrom` have not been read yet.
    ConfigPending,
    /// The operator may not read an object of `spec.configFrom`.
    ConfigSourceForbidden,
    /// An object of `spec.configFrom` is not there, or not labelled.
    ConfigSourceNotFound,
    /// A value of `spec.configFrom` is missing or unusable.
    ConfigValueInvalid,
    /// No runtime has the driver.
    DriverNotFound,
    /// Deletion waits for Sessions.
    InUse,
    /// Somebody else's object has a name that the Store needs.
    NameTaken,
    /// Another operator manages the Store.
    ManagedByOther,
    /// Disks hold another Store's groups.
    ExistingData,
    /// The plan is gone.
    BootstrapPlanMissing,
    /// The plan cannot be read.
    BootstrapPlanDamaged,
    /// A member's disk is gone.
    DiskLost,
    /// Nodes do not answer.
    NodesUnreachable,
    /// All data of an ephemeral Store is gone.
    EphemeralDisksEmpty,
    /// No machine takes a pod.
    PodUnschedulable,
    /// A pod waits for a volume that nobody makes.
    VolumeNotBound,
    /// A pod failed as a whole.
    PodFailed,
    /// An image cannot be had.
    ImagePullFailed,
    /// A container cannot be started.
    ContainerNotStarted,
    /// The node's program ends.
    NodeCrashed,
    /// A call failed.
    Failed(Category),
}

impl Reason {
    /// The word in a condition.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AllPartitionsReady => "AllPartitionsReady",
            Self::DriverAvailable => "DriverAvailable",
            Self::AsSpecified => "AsSpecified",
            Self::FullStrength => "FullStrength",
            Self::NotStalled => "NotStalled",
            Self::Paused => "Paused",
            Self::WaitingForNodes => "WaitingForNodes",
            Self::WaitingForEarlierStore => "WaitingForEarlierStore",
            Self::Bootstrapping => "Bootstrapping",
            Self::PartitionsNotReady => "PartitionsNotReady",
            Self::QuorumLost => "QuorumLost",
            Self::VolumesNotGrown => "VolumesNotGrown",
            Self::MovingMembers => "MovingMembers",
            Self::ReplacingMembers => "ReplacingMembers",
            Self::PlacementWaits => "PlacementWaits",
            Self::ReplacingPods => "ReplacingPods",
            Self::RollStopped => "RollStopped",
            Self::DataLossNotAllowed => "DataLossNotAllowed",
            Self::InvalidSpec => "InvalidSpec",
            Self::ConfigPending => "ConfigPending",
            Self::ConfigSourceForbidden => "ConfigSourceForbidden",
            Self::ConfigSourceNotFound => "ConfigSourceNotFound",
            Self::ConfigValueInvalid => "ConfigValueInvalid",
            Self::DriverNotFound => "DriverNotFound",
            Self::InUse => "InUse",
            Self::NameTaken => "NameTaken",
            Self::ManagedByOther => "ManagedByOther",
            Self::ExistingData => "ExistingData",
            Self::BootstrapPlanMissing => "BootstrapPlanMissing",
            Self::BootstrapPlanDamaged => "BootstrapPlanDamaged",
            Self::DiskLost => "DiskLost",
            Self::NodesUnreachable => "NodesUnreachable",
            Self::EphemeralDisksEmpty => "EphemeralDisksEmpty",
            Self::PodUnschedulable => "PodUnschedulable",
            Self::VolumeNotBound => "VolumeNotBound",
            Self::PodFailed => "PodFailed",
            Self::ImagePullFailed => "ImagePullFailed",
            Self::ContainerNotStarted => "ContainerNotStarted",
            Self::NodeCrashed => "NodeCrashed",
            Self::Failed(category) => category.as_str(),
        }
    }

    /// Whether all is as it should be: such a condition needs no advice.
    #[must_use]
    pub fn is_fine(self) -> bool {
        matches!(
            self,
            Self::AllPartitionsReady
                | Self::DriverAvailable
                | Self::AsSpecified
                | Self::FullStrength
                | Self::NotStalled
        )
    }

    /// Whether it belongs to the life of a healthy Store: no event warns of it.
    #[must_use]
    pub fn is_expected(self) -> bool {
        self.is_fine()
            || matches!(
                self,
                Self::Paused
                    | Self::ConfigPending
                    | Self::WaitingForNodes
                    | Self::WaitingForEarlierStore
                    | Self::Bootstrapping
                    | Self::PartitionsNotReady
                    | Self::MovingMembers
                    | Self::ReplacingMembers
                    | Self::PlacementWaits
                    | Self::ReplacingPods
            )
    }

    /// Every reason that this operator gives.
    pub fn all() -> impl Iterator<Item = Self> {
        let own = [
            Self::AllPartitionsReady,
            Self::DriverAvailable,
            Self::AsSpecified,
            Self::FullStrength,
            Self::NotStalled,
            Self::Paused,
            Self::WaitingForNodes,
            Self::WaitingForEarlierStore,
            Self::Bootstrapping,
            Self::PartitionsNotReady,
            Self::QuorumLost,
            Self::VolumesNotGrown,
            Self::MovingMembers,
            Self::ReplacingMembers,
            Self::PlacementWaits,
            Self::ReplacingPods,
            Self::RollStopped,
            Self::DataLossNotAllowed,
            Self::InvalidSpec,
            Self::ConfigPending,
            Self::ConfigSourceForbidden,
            Self::ConfigSourceNotFound,
            Self::ConfigValueInvalid,
            Self::DriverNotFound,
            Self::InUse,
            Self::NameTaken,
            Self::ManagedByOther,
            Self::ExistingData,
            Self::BootstrapPlanMissing,
            Self::BootstrapPlanDamaged,
            Self::DiskLost,
            Self::NodesUnreachable,
            Self::EphemeralDisksEmpty,
            Self::PodUnschedulable,
            Self::VolumeNotBound,
            Self::PodFailed,
            Self::ImagePullFailed,
            Self::ContainerNotStarted,
            Self::NodeCrashed,
        ];
        // The others pass by themselves and are not told.
        let failed = [
            Category::Forbidden,
            Category::PeerRefused,
            Category::Rejected,
        ];
        own.into_iter().chain(failed.map(Self::Failed))
    }
}
