//! Why the configuration of a Store cannot be made, and what to do about it. Pure.

use std::fmt;

use thiserror::Error;

use crate::store::reason::Reason;
use crate::store::spec::validate::InvalidStore;
use atomix_resources::labels::CONFIG;

/// What kind of object holds values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SourceKind {
    /// A Secret.
    Secret,
    /// A ConfigMap.
    ConfigMap,
}

impl fmt::Display for SourceKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Secret => "Secret",
            Self::ConfigMap => "ConfigMap",
        })
    }
}

/// An object that holds values, in the namespace of the Store that names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceObject {
    /// What it is.
    pub kind: SourceKind,
    /// Its name.
    pub name: String,
}

impl fmt::Display for SourceObject {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.kind, self.name)
    }
}

/// Why there is no configuration. Never holds a value.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ConfigTrouble {
    /// The operator has just started, or the Store has just changed.
    #[error("the objects of spec.configFrom are being read: no action")]
    NotRead,
    /// The operator may not read Secrets there.
    #[error(
        "the operator is not set up to read Secrets of the namespace {namespace}: add it to the \
         chart's value configFrom.secretNamespaces and upgrade the release"
    )]
    NotGranted {
        /// The namespace of the Store.
        namespace: String,
    },
    /// The API server does not let the operator read the object.
    #[error(
        "the operator's ServiceAccount may not read {0}: grant it get, list and watch, as the \
         chart does"
    )]
    Forbidden(SourceObject),
    /// There is no such object.
    #[error("{0} does not exist: create it with the label {CONFIG}: \"true\"")]
    NotFound(SourceObject),
    /// It lacks the label by which the operator may read it.
    #[error("{0} is not labelled for the operator to read it: add the label {CONFIG}: \"true\"")]
    Unlabelled(SourceObject),
    /// It has no value of that name.
    #[error("{object} has no key {key}: add it, or correct spec.configFrom")]
    KeyNotFound {
        /// The object.
        object: SourceObject,
        /// The key.
        key: String,
    },
    /// The value is no text.
    #[error("key {key} of {object} is not UTF-8 text: replace the value")]
    NotText {
        /// The object.
        object: SourceObject,
        /// The key.
        key: String,
    },
    /// The value is too long for a driver's configuration.
    #[error("key {key} of {object} has {length} bytes: give at most {most}")]
    TooLong {
        /// The object.
        object: SourceObject,
        /// The key.
        key: String,
        /// How long it is.
        length: usize,
        /// How long it may be.
        most: usize,
    },
    /// A field on the way is there, and holds no fields.
    #[error(
        "spec.configFrom cannot put a value at {path}: spec.config.{field} is not an object; \
         remove that field, or choose another path"
    )]
    PathTaken {
        /// Where the value should go.
        path: String,
        /// The field in the way.
        field: String,
    },
    /// The driver does not take the values, wherever they come from.
    #[error("correct the specification: {0}")]
    Refused(InvalidStore),
}

impl ConfigTrouble {
    /// Reason of conditions.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::NotRead => Reason::ConfigPending,
            Self::NotGranted { .. } | Self::Forbidden(_) => Reason::ConfigSourceForbidden,
            Self::NotFound(_) | Self::Unlabelled(_) => Reason::ConfigSourceNotFound,
            Self::KeyNotFound { .. }
            | Self::NotText { .. }
            | Self::TooLong { .. }
            | Self::PathTaken { .. } => Reason::ConfigValueInvalid,
            Self::Refused(_) => Reason::InvalidSpec,
        }
    }

    /// Whether only a person can go on.
    #[must_use]
    pub fn needs_person(&self) -> bool {
        !matches!(self, Self::NotRead)
    }
}
