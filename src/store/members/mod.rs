//! Where the members of the partitions lie: planned from what is observed, changed by Join and Leave,
//! or as a person asks when a quorum is lost.

pub mod change;
pub mod place;
pub mod placement;
pub mod recovery;
