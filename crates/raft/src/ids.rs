//! The ids that groups are made of.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id! {
    /// One partition of the store; at least 1.
    PartitionId(u32)
}
id! {
    /// One stay of one partition on one disk: 63 random bits, never used again after the member
    /// left. 0 is no member.
    MemberId(u64)
}
id! {
    /// One data directory: 63 random bits, minted when the directory is first opened. 0 is no node.
    NodeId(u64)
}
