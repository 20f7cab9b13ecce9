//! The kind `lock` lives in one partition and has no streams.

use crate::spread::Spread;

use super::Lock;

impl Spread for Lock {}
