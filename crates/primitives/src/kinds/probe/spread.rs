//! The kind `probe` lives in one partition and has no streams.

use crate::spread::Spread;

use super::Probe;

impl Spread for Probe {}
