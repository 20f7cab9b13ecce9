//! Texts of CEL rules that several fields share, and schemas of scalar values.
//! The rules themselves stand at the fields they bind.

use kube::core::Rule;
use schemars::{Schema, SchemaGenerator, json_schema};

/// Added to every refusal of a change that a later version will carry out.
const NOT_YET: &str = "this version of the operator cannot carry out the change; \
                       create a new Store, or set the old value again";

/// An optional field that must stay as it was.
pub(super) fn unchanged(field: &str) -> Rule {
    Rule::new(format!(
        "has(self.{field}) == has(oldSelf.{field}) \
         && (!has(self.{field}) || self.{field} == oldSelf.{field})"
    ))
    .message(format!("{field} cannot be changed yet: {NOT_YET}").as_str())
}

/// A field with a default that must keep its meaning; writing the default out is no change.
pub(super) fn unchanged_with_default(field: &str, default: &str, why: &str) -> Rule {
    Rule::new(format!(
        "(has(self.{field}) ? self.{field} : {default}) \
         == (has(oldSelf.{field}) ? oldSelf.{field} : {default})"
    ))
    .message(format!("{field} cannot be changed{why}").as_str())
}

/// As [`unchanged_with_default`], for a value that is computed: `value` is CEL over the words of
/// [`of_new_and_old`].
pub(super) fn unchanged_value(field: &str, value: &str) -> Rule {
    let (new, old) = of_new_and_old(value);
    Rule::new(format!("({new}) == ({old})"))
        .message(format!("{field} cannot be changed{}", not_yet()).as_str())
}

/// The same CEL for the new object and for the old one, in place of `this`.
pub(super) fn of_new_and_old(value: &str) -> (String, String) {
    (
        value.replace("this.", "self."),
        value.replace("this.", "oldSelf."),
    )
}

/// CEL of the whole object: without a replicationFactor in the specification, that of the status is
/// in force.
pub(super) const REPLICAS_HOLD_KEPT_FACTOR: &str = "!has(self.spec.multiRaft) \
     || has(self.spec.multiRaft.replicationFactor) \
     || !has(self.spec.multiRaft.replicas) \
     || !has(self.status) || !has(self.status.replicationFactor) \
     || self.spec.multiRaft.replicas >= self.status.replicationFactor";

/// CEL for the election timeout, with the default; of `multiRaft`. As `validate::timings`: it does
/// not hang on replicas, since it stays when they change.
pub(super) const ELECTION_TIMEOUT: &str = "has(this.raft) && has(this.raft.electionTimeout) \
     ? duration(this.raft.electionTimeout) \
     : ((has(this.partitions) ? this.partitions : 3) > 64 ? duration('2500ms') : duration('1s'))";

/// CEL for the snapshot threshold, with the node's default; of `multiRaft`.
pub(super) const SNAPSHOT_ENTRY_THRESHOLD: &str = "has(this.raft) && has(this.raft.snapshotEntryThreshold) \
     ? this.raft.snapshotEntryThreshold : 10000";

/// CEL for storage of the same kind and class; of `storage`.
pub(super) const SAME_KIND_OF_STORAGE: &str = "has(self.ephemeral) == has(oldSelf.ephemeral) \
     && has(self.storageClassName) == has(oldSelf.storageClassName) \
     && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)";

/// CEL for volumes that do not shrink; of `storage`.
pub(super) const STORAGE_GROWS: &str = "!has(self.size) || !has(oldSelf.size) \
     || !isQuantity(string(self.size)) || !isQuantity(string(oldSelf.size)) \
     || quantity(string(self.size)).compareTo(quantity(string(oldSelf.size))) >= 0";

/// [`NOT_YET`] as the end of a message.
pub(super) fn not_yet() -> String {
    format!(" yet: {NOT_YET}")
}

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
