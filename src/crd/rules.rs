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

/// [`NOT_YET`] as the end of a message.
pub(super) fn not_yet() -> String {
    format!(" yet: {NOT_YET}")
}

/// Schema of a free-form JSON object.
pub(super) fn free_form_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
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
