//! The kind `counter` lives in one partition and has no streams.

use crate::spread::Spread;

use super::Counter;

impl Spread for Counter {}
