//! Raft groups: openraft behind our own trait, one durable log for all groups of a process.
