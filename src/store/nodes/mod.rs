//! What the storage nodes say of themselves, and what follows from it: which partitions work, which
//! copies count.

pub mod health;
pub mod node_view;
pub mod strength;
pub mod watches;
