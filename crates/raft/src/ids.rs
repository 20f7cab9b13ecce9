//! The ids that groups are made of.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty), $format:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $format, self.0)
            }
        }
    };
}

id! {
    /// One partition of the store; at least 1.
    PartitionId(u32), "{}"
}
id! {
    /// One stay of one partition on one disk: 63 random bits, never used again after the member
    /// left. 0 is no member. Shown as 16 hex digits, as everywhere outside of messages.
    MemberId(u64), "{:016x}"
}
id! {
    /// One data directory: 63 random bits, minted when the directory is first opened. 0 is no node.
    /// Shown as 16 hex digits, as everywhere outside of messages.
    NodeId(u64), "{:016x}"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_members_and_nodes_are_16_hex_digits_and_partitions_are_counted() {
        assert_eq!(PartitionId(26).to_string(), "26");
        assert_eq!(MemberId(26).to_string(), "000000000000001a");
        assert_eq!(
            NodeId(0x7edc_ba98_7654_3210).to_string(),
            "7edcba9876543210"
        );
    }
}
