//! Keys, elements and candidates as text: the API has strings there.
//!
//! The text is what JSON makes of the key of an object: a string is itself without quotes, a number or
//! a truth value its digits or name, a variant without fields its name. So clients in other languages
//! meet the same keys, and every client finds a key in the same partition.

use std::fmt;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::{DeserializeOwned, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// The text of a key.
///
/// # Errors
/// [`Error::Encode`] for what JSON has no key for: sequences, maps, structs with fields.
pub(crate) fn encode<K: Serialize + ?Sized>(key: &K) -> Result<String> {
    let object = serde_json::to_value(OnlyKey(key)).map_err(|error| Error::Encode(error.into()))?;
    let text = match object {
        Value::Object(object) => object.into_iter().next().map(|(text, _)| text),
        _ => None,
    };
    text.ok_or_else(|| Error::Encode("the key has no text".into()))
}

/// The text of a key where an empty one would mean another thing.
///
/// # Errors
/// As [`encode`]; [`Error::InvalidArgument`] when it is empty.
pub(crate) fn encode_named<K: Serialize + ?Sized>(key: &K) -> Result<String> {
    let text = encode(key)?;
    if text.is_empty() {
        return Err(Error::InvalidArgument("key: it is empty".to_owned()));
    }
    Ok(text)
}

/// The texts of keys.
pub(crate) fn encode_all<'a, K: Serialize + ?Sized + 'a>(
    keys: impl IntoIterator<Item = &'a K>,
) -> Result<Vec<String>> {
    keys.into_iter().map(encode).collect()
}

/// The key of a text.
///
/// # Errors
/// [`Error::Decode`] when the text is none of these keys.
pub(crate) fn decode<K: DeserializeOwned>(text: String) -> Result<K> {
    let mut object = Map::new();
    object.insert(text, Value::Null);
    object
        .deserialize_map(ReadsKey(PhantomData))
        .map_err(|error| Error::Decode(error.into()))
}

/// The keys of texts.
pub(crate) fn decode_all<K: DeserializeOwned>(texts: Vec<String>) -> Result<Vec<K>> {
    texts.into_iter().map(decode).collect()
}

/// An object with this key alone.
struct OnlyKey<'a, K: ?Sized>(&'a K);

impl<K: Serialize + ?Sized> Serialize for OnlyKey<'_, K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(Some(1))?;
        object.serialize_entry(self.0, &())?;
        object.end()
    }
}

struct ReadsKey<K>(PhantomData<K>);

impl<'de, K: DeserializeOwned> Visitor<'de> for ReadsKey<K> {
    type Value = K;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<K, A::Error> {
        let entry = object.next_entry::<K, IgnoredAny>()?;
        let key = entry.map(|(key, _)| key);
        key.ok_or_else(|| serde::de::Error::custom("there is no key"))
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use serde::Deserialize;

    use super::*;

    fn assert_text<K: Serialize + DeserializeOwned + PartialEq + Debug>(key: K, text: &str) {
        assert_eq!(encode(&key).unwrap(), text);
        assert_eq!(decode::<K>(text.to_owned()).unwrap(), key);
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct UserId(u64);

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Color {
        Red,
    }

    #[test]
    fn a_key_is_its_text_without_quotes() {
        assert_text("plain".to_owned(), "plain");
        assert_text("a \"quoted\" ä".to_owned(), "a \"quoted\" ä");
        assert_text(String::new(), "");
        assert_text("17".to_owned(), "17");
        assert_text(17_u64, "17");
        assert_text(-1_i32, "-1");
        assert_text(true, "true");
        assert_text('x', "x");
        assert_text(UserId(7), "7");
        assert_text(Color::Red, "Red");
        assert_eq!(encode("borrowed").unwrap(), "borrowed");
    }

    #[test]
    fn what_has_no_text_and_what_is_no_key_are_refused() {
        assert!(matches!(encode(&vec![1, 2]), Err(Error::Encode(_))));
        assert!(matches!(encode(&(1, "a")), Err(Error::Encode(_))));
        assert!(matches!(
            decode::<u64>("many".to_owned()),
            Err(Error::Decode(_))
        ));
    }
}
