//! How values become bytes.

use std::fmt;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::CodecError;

/// Turns values of type `T` into bytes and back.
///
/// The store keeps bytes and asks nothing of them, so all applications that share a primitive must
/// use the same codec. [`Json`] is the default, [`Raw`] leaves bytes and text as they are; another
/// encoding, such as protocol buffers, is another implementation of this trait.
pub trait Codec<T>: Clone + Send + Sync + 'static {
    /// The bytes of a value.
    ///
    /// # Errors
    /// Why it has none.
    fn encode(&self, value: &T) -> Result<Bytes, CodecError>;

    /// The value of bytes.
    ///
    /// # Errors
    /// Why they are none.
    fn decode(&self, bytes: Bytes) -> Result<T, CodecError>;
}

/// JSON, by serde: every language reads it, people read it, and fields can be added to a struct while
/// older programs still run. Larger than binary encodings; a value is limited to about 1 MiB
/// whatever the codec.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Json;

impl<T: Serialize + DeserializeOwned> Codec<T> for Json {
    fn encode(&self, value: &T) -> Result<Bytes, CodecError> {
        Ok(serde_json::to_vec(value)?.into())
    }

    fn decode(&self, bytes: Bytes) -> Result<T, CodecError> {
        serde_json::from_slice(&bytes).map_err(|error| {
            let problem = NotJson {
                bytes: bytes.len(),
                error,
            };
            problem.into()
        })
    }
}

/// Bytes and text as they are: for values that are encoded already, and for those of applications
/// that write plain strings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Raw;

impl Codec<Bytes> for Raw {
    fn encode(&self, value: &Bytes) -> Result<Bytes, CodecError> {
        Ok(value.clone())
    }

    fn decode(&self, bytes: Bytes) -> Result<Bytes, CodecError> {
        Ok(bytes)
    }
}

impl Codec<Vec<u8>> for Raw {
    fn encode(&self, value: &Vec<u8>) -> Result<Bytes, CodecError> {
        Ok(Bytes::copy_from_slice(value))
    }

    fn decode(&self, bytes: Bytes) -> Result<Vec<u8>, CodecError> {
        Ok(bytes.into())
    }
}

impl Codec<String> for Raw {
    fn encode(&self, value: &String) -> Result<Bytes, CodecError> {
        Ok(Bytes::copy_from_slice(value.as_bytes()))
    }

    fn decode(&self, bytes: Bytes) -> Result<String, CodecError> {
        Ok(String::from_utf8(bytes.into())?)
    }
}

/// Bytes that are not the JSON of the expected type.
#[derive(Debug)]
struct NotJson {
    bytes: usize,
    error: serde_json::Error,
}

impl fmt::Display for NotJson {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bytes, error } = self;
        write!(
            formatter,
            "{bytes} bytes are not the expected JSON: {error}"
        )
    }
}

impl std::error::Error for NotJson {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_plain_json_and_raw_is_the_bytes_themselves() {
        let json = |value: &(String, u32)| Json.encode(value).unwrap();
        assert_eq!(json(&("a".to_owned(), 1)), &br#"["a",1]"#[..]);
        let back: (String, u32) = Json.decode(Bytes::from_static(br#" ["a", 1] "#)).unwrap();
        assert_eq!(back, ("a".to_owned(), 1));
        let error = Codec::<u32>::decode(&Json, Bytes::from_static(b"one")).unwrap_err();
        assert!(error.to_string().contains("3 bytes"), "{error}");
        let text = "plain".to_owned();
        assert_eq!(Raw.encode(&text).unwrap(), "plain");
        let back: String = Raw.decode(Bytes::from_static(b"plain")).unwrap();
        assert_eq!(back, text);
        let not_text: Result<String, _> = Raw.decode(Bytes::from_static(b"\xff"));
        assert!(not_text.is_err());
    }
}
