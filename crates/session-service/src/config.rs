//! A session's configuration on the wire.

use prost::Message as _;
use prost_types::{Any, ListValue, Struct, Value, value};

const STRUCT_TYPE: &str = "type.googleapis.com/google.protobuf.Struct";

/// A JSON object as a packed `google.protobuf.Struct`.
#[must_use]
pub fn packed_config(fields: serde_json::Map<String, serde_json::Value>) -> Any {
    Any {
        type_url: STRUCT_TYPE.to_owned(),
        value: struct_of(fields).encode_to_vec(),
    }
}

fn struct_of(fields: serde_json::Map<String, serde_json::Value>) -> Struct {
    Struct {
        fields: fields
            .into_iter()
            .map(|(name, value)| (name, value_of(value)))
            .collect(),
    }
}

fn value_of(json: serde_json::Value) -> Value {
    let kind = match json {
        serde_json::Value::Null => value::Kind::NullValue(0),
        serde_json::Value::Bool(boolean) => value::Kind::BoolValue(boolean),
        serde_json::Value::Number(number) => {
            value::Kind::NumberValue(number.as_f64().unwrap_or_default())
        }
        serde_json::Value::String(text) => value::Kind::StringValue(text),
        serde_json::Value::Array(items) => value::Kind::ListValue(ListValue {
            values: items.into_iter().map(value_of).collect(),
        }),
        serde_json::Value::Object(fields) => value::Kind::StructValue(struct_of(fields)),
    };
    Value { kind: Some(kind) }
}
