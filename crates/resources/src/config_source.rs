//! Where single values of a Store's driver configuration come from: Secrets and ConfigMaps.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// CEL for the list: no value is put where another one is, or into it.
pub(super) const PATHS_ARE_APART: &str = "self.all(one, \
     self.exists_one(other, other.path == one.path || other.path.startsWith(one.path + '.')))";

/// One value of a Secret or ConfigMap, and where it goes.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.secretRef) != has(self.configMapRef)")
    .message("give either a secretRef or a configMapRef"))]
pub struct ConfigSource {
    /// The Secret that holds the value. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<ConfigObject>,
    /// The ConfigMap that holds the value. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_ref: Option<ConfigObject>,
    /// Key of the value in the object. The value is taken as text, with every character.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: String,
    /// Where the value goes: names of fields of `config` with dots between them, such as
    /// `timeouts.session`. Objects that are not there are made.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-zA-Z_][-a-zA-Z0-9_]*(\.[a-zA-Z_][-a-zA-Z0-9_]*)*$")
    )]
    pub path: String,
}

/// Names a Secret or ConfigMap of the Store's own namespace.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ConfigObject {
    /// Name of the object. It must carry the label `atomix.io/config: "true"`.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}
