//! What is on the wire, held against `wire.txt`: names, numbers and types of every method, field
//! and enum value. Programs of other versions and other implementations rely on each of them.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;

use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet};

const RECORDED: &str = include_str!("../wire.txt");

#[test]
fn nothing_on_the_wire_changes_or_goes_away_and_additions_are_recorded() {
    let found = facts();
    let recorded: BTreeSet<String> = RECORDED
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect();
    let gone: Vec<&String> = recorded.difference(&found).collect();
    let new: Vec<&String> = found.difference(&recorded).collect();
    assert!(
        gone.is_empty(),
        "these are on the wire of released programs and must stay as they are: {gone:#?}"
    );
    let lines: String = new.iter().map(|line| format!("{line}\n")).collect();
    assert!(
        new.is_empty(),
        "additions are for ever; if these are right, add them to crates/proto/wire.txt:\n{lines}"
    );
}

/// One line a method, field and enum value.
fn facts() -> BTreeSet<String> {
    let files = FileDescriptorSet::decode(crate::FILE_DESCRIPTOR_SET).unwrap();
    let mut facts = BTreeSet::new();
    for file in &files.file {
        let package = file.package();
        if !package.starts_with("atomix.") {
            continue;
        }
        for service in &file.service {
            for method in &service.method {
                facts.insert(format!(
                    "{package}.{}/{}({}{}) -> {}{}",
                    service.name(),
                    method.name(),
                    stream(method.client_streaming()),
                    method.input_type().trim_start_matches('.'),
                    stream(method.server_streaming()),
                    method.output_type().trim_start_matches('.'),
                ));
            }
        }
        for message in &file.message_type {
            message_facts(package, message, &mut facts);
        }
        for values in &file.enum_type {
            enum_facts(package, values, &mut facts);
        }
    }
    facts
}

fn message_facts(parent: &str, message: &DescriptorProto, facts: &mut BTreeSet<String>) {
    let name = format!("{parent}.{}", message.name());
    for field in &message.field {
        facts.insert(format!(
            "{name} {} = {}: {}{}",
            field.name(),
            field.number(),
            if field.label() == Label::Repeated {
                "repeated "
            } else {
                ""
            },
            type_of(field),
        ));
    }
    for nested in &message.nested_type {
        message_facts(&name, nested, facts);
    }
    for values in &message.enum_type {
        enum_facts(&name, values, facts);
    }
}

fn enum_facts(parent: &str, values: &EnumDescriptorProto, facts: &mut BTreeSet<String>) {
    for value in &values.value {
        facts.insert(format!(
            "{parent}.{} {} = {}",
            values.name(),
            value.name(),
            value.number()
        ));
    }
}

fn type_of(field: &FieldDescriptorProto) -> String {
    match field.r#type() {
        Type::Message | Type::Enum => field.type_name().trim_start_matches('.').to_owned(),
        scalar => scalar
            .as_str_name()
            .trim_start_matches("TYPE_")
            .to_ascii_lowercase(),
    }
}

fn stream(is_stream: bool) -> &'static str {
    if is_stream { "stream " } else { "" }
}
