//! An object of a cache of which is known that it decoded. Whoever keeps it shares the cache's copy.

use std::ops::Deref;
use std::sync::Arc;

use kube::core::DeserializeGuard;
use kube::core::error_boundary::InvalidObject;

/// A cached object that decoded. Clones share it.
#[derive(Debug, Clone)]
pub struct Decoded<K>(Arc<DeserializeGuard<K>>);

impl<K> Decoded<K> {
    /// A cached object.
    ///
    /// # Errors
    /// When it did not decode.
    pub fn of(object: &Arc<DeserializeGuard<K>>) -> Result<Self, &InvalidObject> {
        object.0.as_ref().map(|_| Self(Arc::clone(object)))
    }
}

impl<K> From<K> for Decoded<K> {
    /// An object that is in no cache.
    fn from(object: K) -> Self {
        Self(Arc::new(DeserializeGuard(Ok(object))))
    }
}

impl<K> Deref for Decoded<K> {
    type Target = K;

    fn deref(&self) -> &K {
        let Self(object) = self;
        #[allow(
            clippy::expect_used,
            reason = "both ways to make one take what decoded, and nothing changes it"
        )]
        object.0.as_ref().expect("it decoded")
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;

    #[test]
    fn only_what_decoded_is_taken_and_the_copy_is_shared() {
        let object = Arc::new(DeserializeGuard(Ok(ConfigMap::default())));
        let decoded = Decoded::of(&object);
        assert_eq!(decoded.as_deref().ok(), Some(&ConfigMap::default()));
        assert_eq!(Arc::strong_count(&object), 2);
        let undecodable = InvalidObject {
            error: "colour".to_owned(),
            metadata: ObjectMeta::default(),
        };
        let object: Arc<DeserializeGuard<ConfigMap>> = Arc::new(DeserializeGuard(Err(undecodable)));
        assert!(Decoded::of(&object).is_err());
    }
}
