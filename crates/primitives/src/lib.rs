//! The replicated state machine of a partition: sessions and primitives, without I/O.
