//! Puts the values of `spec.configFrom` into `spec.config`. Pure.

use std::fmt;

use serde_json::{Map, Value};

use super::trouble::{ConfigTrouble, SourceKind, SourceObject};
use atomix_resources::{ConfigSource, StoreSpec};

/// The longest value: 16 of these and a Store fit into one message to a runtime.
pub const LONGEST_VALUE: usize = 64 * 1024;

/// A driver's configuration with the values in it. Shows none of them.
#[derive(Clone, PartialEq)]
pub struct MergedConfig {
    /// The configuration.
    pub fields: Map<String, Value>,
    /// The same with the names of the sources instead of their values, for people.
    pub shown: Map<String, Value>,
    /// Whether a value comes from a Secret, so that nothing that is said about `fields` by others
    /// may be repeated.
    pub has_secrets: bool,
}

impl fmt::Debug for MergedConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("MergedConfig")
            .field("shown", &self.shown)
            .finish_non_exhaustive()
    }
}

impl MergedConfig {
    /// A configuration that stands in the Store as a whole.
    #[must_use]
    pub fn plain(config: Map<String, Value>) -> Self {
        Self {
            shown: config.clone(),
            fields: config,
            has_secrets: false,
        }
    }
}

/// A value of a Secret or ConfigMap. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct SourceValue(String);

impl fmt::Debug for SourceValue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SourceValue(…)")
    }
}

impl SourceValue {
    /// The value under this key.
    ///
    /// # Errors
    /// When it cannot be part of a configuration.
    pub fn of(object: &SourceObject, key: &str, value: &[u8]) -> Result<Self, ConfigTrouble> {
        if value.len() > LONGEST_VALUE {
            return Err(ConfigTrouble::TooLong {
                object: object.clone(),
                key: key.to_owned(),
                length: value.len(),
                most: LONGEST_VALUE,
            });
        }
        match std::str::from_utf8(value) {
            Ok(text) => Ok(Self(text.to_owned())),
            Err(_) => Err(ConfigTrouble::NotText {
                object: object.clone(),
                key: key.to_owned(),
            }),
        }
    }
}

/// The object that a source names.
#[must_use]
pub fn object_of(source: &ConfigSource) -> SourceObject {
    let (kind, reference) = match (&source.secret_ref, &source.config_map_ref) {
        (Some(secret), _) => (SourceKind::Secret, Some(secret)),
        (None, config_map) => (SourceKind::ConfigMap, config_map.as_ref()),
    };
    SourceObject {
        kind,
        // The schema asks for one of the two; a nameless object is never found.
        name: reference
            .map(|object| object.name.clone())
            .unwrap_or_default(),
    }
}

/// The sources of a Store.
#[must_use]
pub fn sources(spec: &StoreSpec) -> &[ConfigSource] {
    spec.config_from.as_deref().unwrap_or_default()
}

/// The configuration with one value for each source, in their order.
///
/// # Errors
/// When a value cannot go where it should.
pub fn merge(spec: &StoreSpec, values: &[SourceValue]) -> Result<MergedConfig, ConfigTrouble> {
    let sources = sources(spec);
    let mut merged = MergedConfig::plain(spec.config.clone().unwrap_or_default());
    merged.shown = shown(spec)?;
    for (source, value) in sources.iter().zip(values) {
        put(&mut merged.fields, &source.path, value.0.clone())?;
        merged.has_secrets |= object_of(source).kind == SourceKind::Secret;
    }
    Ok(merged)
}

/// The configuration with the names of the sources for their values; known without reading any.
///
/// # Errors
/// As [`merge`].
pub fn shown(spec: &StoreSpec) -> Result<Map<String, Value>, ConfigTrouble> {
    let mut fields = spec.config.clone().unwrap_or_default();
    for source in sources(spec) {
        let name = format!("from {}, key {}", object_of(source), source.key);
        put(&mut fields, &source.path, name)?;
    }
    Ok(fields)
}

fn put(fields: &mut Map<String, Value>, path: &str, text: String) -> Result<(), ConfigTrouble> {
    let mut fields = fields;
    let mut rest = path;
    while let Some((name, below)) = rest.split_once('.') {
        let field = fields
            .entry(name)
            .or_insert_with(|| Value::Object(Map::new()));
        let Value::Object(inner) = field else {
            let end = path.len() - below.len() - 1;
            return Err(ConfigTrouble::PathTaken {
                path: path.to_owned(),
                field: path.get(..end).unwrap_or(path).to_owned(),
            });
        };
        fields = inner;
        rest = below;
    }
    fields.insert(rest.to_owned(), Value::String(text));
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use serde_json::json;

    use super::*;

    fn spec(config: &Value, sources: &Value) -> StoreSpec {
        serde_json::from_value(json!({
            "driver": {"name": "memory"}, "config": config, "configFrom": sources,
        }))
        .unwrap()
    }

    fn values(texts: &[&str]) -> Vec<SourceValue> {
        texts
            .iter()
            .map(|text| SourceValue((*text).to_owned()))
            .collect()
    }

    #[test]
    fn values_go_where_their_paths_say_and_are_not_shown() {
        let secret = |path: &str| json!({"secretRef": {"name": "bees"}, "key": "k", "path": path});
        let plain = json!({"configMapRef": {"name": "hive"}, "key": "k", "path": "place"});
        for (config, sources, expected, shown) in [
            (
                json!({}),
                json!([secret("a.b.c"), plain]),
                json!({"a": {"b": {"c": "1"}}, "place": "2"}),
                json!({"a": {"b": {"c": "from Secret bees, key k"}},
                       "place": "from ConfigMap hive, key k"}),
            ),
            (
                json!({"a": {"x": 1, "b": "old"}}),
                json!([secret("a.b"), plain]),
                json!({"a": {"x": 1, "b": "1"}, "place": "2"}),
                json!({"a": {"x": 1, "b": "from Secret bees, key k"},
                       "place": "from ConfigMap hive, key k"}),
            ),
        ] {
            let merged = merge(&spec(&config, &sources), &values(&["1", "2"])).unwrap();
            assert_eq!(Value::Object(merged.fields.clone()), expected);
            assert_eq!(Value::Object(merged.shown.clone()), shown);
            assert!(merged.has_secrets);
            assert!(!format!("{merged:?}").contains("\"1\""), "{merged:?}");
        }
        let taken = spec(&json!({"a": {"b": 5}}), &json!([secret("a.b.c")]));
        let trouble = merge(&taken, &values(&["1"])).unwrap_err();
        let expected = ConfigTrouble::PathTaken {
            path: "a.b.c".to_owned(),
            field: "a.b".to_owned(),
        };
        assert_eq!(trouble, expected);
        assert_eq!(format!("{:?}", values(&["1"])), "[SourceValue(…)]");
    }

    #[test]
    fn a_value_that_is_no_text_or_too_long_is_refused() {
        let object = SourceObject {
            kind: SourceKind::Secret,
            name: "bees".to_owned(),
        };
        assert!(SourceValue::of(&object, "k", b"honey\n").is_ok());
        let not_text = SourceValue::of(&object, "k", &[0xff]).unwrap_err();
        assert!(not_text.to_string().contains("UTF-8"), "{not_text}");
        let long = vec![b'x'; LONGEST_VALUE + 1];
        let too_long = SourceValue::of(&object, "k", &long).unwrap_err();
        assert!(too_long.to_string().contains("at most 65536"), "{too_long}");
        assert!(SourceValue::of(&object, "k", &long[1..]).is_ok());
    }
}
