//! Texts of CEL rules that several fields share, and schemas of scalar values.
//! The rules themselves stand at the fields they bind.

use kube::core::Rule;
use schemars::{Schema, SchemaGenerator, json_schema};

/// A field with a default that must keep its meaning; writing the default out is no change.
pub(super) fn unchanged_with_default(field: &str, default: &str, why: &str) -> Rule {
    Rule::new(format!(
        "(has(self.{field}) ? self.{field} : {default}) \
         == (has(oldSelf.{field}) ? oldSelf.{field} : {default})"
    ))
    .message(format!("{field} cannot be changed{why}").as_str())
}

/// CEL of the whole object: without a replicationFactor in the specification, that of the status is
/// in force.
pub(super) const REPLICAS_HOLD_KEPT_FACTOR: &str = "!has(self.spec.multiRaft) \
     || has(self.spec.multiRaft.replicationFactor) \
     || !has(self.spec.multiRaft.replicas) \
     || !has(self.status) || !has(self.status.replicationFactor) \
     || self.spec.multiRaft.replicas >= self.status.replicationFactor";

/// CEL for storage of the same kind and class; of `storage`.
pub(super) const SAME_KIND_OF_STORAGE: &str = "has(self.ephemeral) == has(oldSelf.ephemeral) \
     && has(self.storageClassName) == has(oldSelf.storageClassName) \
     && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)";

/// CEL for volumes that do not shrink; of `storage`.
pub(super) const STORAGE_GROWS: &str = "!has(self.size) || !has(oldSelf.size) \
     || !isQuantity(string(self.size)) || !isQuantity(string(oldSelf.size)) \
     || quantity(string(self.size)).compareTo(quantity(string(oldSelf.size))) >= 0";

/// Schema of a free-form JSON object. `null` is one without fields: that is what server-side apply
/// leaves behind when the last field of an object that it owned is taken away.
pub(super) fn free_form_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "nullable": true,
        "x-kubernetes-preserve-unknown-fields": true,
    })
}

/// Schema of a quantity, which may be written as a number or as text.
pub(super) fn quantity(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "maxLength": 32,
    })
}

/// Schema of a duration such as `1s` or `1m30s`.
pub(super) fn duration(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 16,
        "pattern": "^([0-9]+(\\.[0-9]+)?(ms|s|m))+$",
    })
}
