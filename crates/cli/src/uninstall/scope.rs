//! What an operator serves, as its Deployment tells: all namespaces, or one. Pure.

use std::fmt::{Display, Formatter};

use anyhow::{Result, bail};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Container, EnvVar};
use kube::{Api, Client, Resource};

/// The operator's container, as the chart names it.
const CONTAINER: &str = "operator";
/// Names the one namespace; all without it.
const OPTION: &str = "--namespace";
/// The same in the environment; the option beats it.
const VARIABLE: &str = "ATOMIX_NAMESPACE";

/// What an operator serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scope {
    /// All namespaces, and Drivers.
    Cluster,
    /// One namespace.
    Namespace(String),
}

impl Scope {
    /// The objects of a kind that it serves.
    pub(super) fn api<K>(&self, client: &Client) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        match self {
            Self::Cluster => Api::all(client.clone()),
            Self::Namespace(namespace) => Api::namespaced(client.clone(), namespace),
        }
    }
}

impl Display for Scope {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cluster => formatter.write_str("all Stores, Sessions and Drivers"),
            Self::Namespace(namespace) => {
                write!(
                    formatter,
                    "the Stores and Sessions of namespace {namespace}"
                )
            }
        }
    }
}

/// What the operator of this Deployment serves.
///
/// # Errors
/// When the Deployment does not tell.
pub(super) fn scope_of(deployment: &Deployment) -> Result<Scope> {
    let template = deployment.spec.as_ref().map(|spec| &spec.template);
    let pod = template.and_then(|template| template.spec.as_ref());
    let containers = pod.map(|pod| pod.containers.as_slice());
    let containers = containers.unwrap_or_default();
    let mut named = containers.iter();
    let named = named.find(|container| container.name == CONTAINER);
    let Some(container) = named.or(containers.first()) else {
        bail!("it has no container");
    };
    if let Some(namespace) = of_arguments(container) {
        return known(namespace, OPTION);
    }
    let mut variables = container.env.iter().flatten();
    if let Some(variable) = variables.find(|variable| variable.name == VARIABLE) {
        return of_variable(variable, deployment.metadata.namespace.as_deref());
    }
    if container.env_from.iter().flatten().next().is_some() {
        bail!("its environment is from other objects, which may set {VARIABLE}");
    }
    Ok(Scope::Cluster)
}

/// The last one counts; without a value it is an empty one.
fn of_arguments(container: &Container) -> Option<&str> {
    let words = container.command.iter().chain(&container.args).flatten();
    let words: Vec<&str> = words.map(String::as_str).collect();
    let found = (0..).zip(&words).filter_map(|(at, word): (usize, _)| {
        let rest = word.strip_prefix(OPTION)?;
        match rest.strip_prefix('=') {
            Some(namespace) => Some(namespace),
            None if rest.is_empty() => Some(words.get(at + 1).copied().unwrap_or_default()),
            None => None,
        }
    });
    found.last()
}

fn of_variable(variable: &EnvVar, own_namespace: Option<&str>) -> Result<Scope> {
    if let Some(value) = &variable.value {
        return known(value, VARIABLE);
    }
    let source = variable.value_from.as_ref();
    let field = source.and_then(|source| source.field_ref.as_ref());
    match (field.map(|field| field.field_path.as_str()), own_namespace) {
        (Some("metadata.namespace"), Some(own)) => Ok(Scope::Namespace(own.to_owned())),
        _ => bail!("its variable {VARIABLE} is set from another object"),
    }
}

fn known(namespace: &str, by: &str) -> Result<Scope> {
    if namespace.is_empty() || namespace.contains('$') {
        bail!("its {by} is `{namespace}`, which names no namespace");
    }
    Ok(Scope::Namespace(namespace.to_owned()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use serde_json::{Value, json};

    use super::*;

    fn deployment(containers: &Value) -> Deployment {
        serde_json::from_value(json!({
            "metadata": {"name": "tulip", "namespace": "garden"},
            "spec": {
                "selector": {},
                "template": {"spec": {"containers": containers}},
            },
        }))
        .unwrap()
    }

    #[test]
    fn the_scope_is_what_the_operator_reads() {
        let from_pod = json!({"fieldRef": {"fieldPath": "metadata.namespace"}});
        let from_map = json!({"configMapKeyRef": {"name": "settings", "key": "namespace"}});
        let variable = |value: &str| json!([{"name": VARIABLE, "value": value}]);
        for (expected, mut container) in [
            (Some(None), json!({})),
            (
                Some(None),
                json!({"args": ["run", "--lease-namespace=garden"]}),
            ),
            (Some(None), json!({"args": ["--namespaces=meadow"]})),
            (
                Some(Some("meadow")),
                json!({"args": ["run", "--namespace=meadow"]}),
            ),
            (
                Some(Some("meadow")),
                json!({"args": ["--namespace", "meadow", "--x"]}),
            ),
            (
                Some(Some("meadow")),
                json!({"command": ["atomix-operator", "--namespace=meadow"]}),
            ),
            (Some(Some("meadow")), json!({"env": variable("meadow")})),
            (
                Some(Some("meadow")),
                json!({"args": ["--namespace=meadow"], "env": variable("hill")}),
            ),
            (
                Some(Some("garden")),
                json!({"env": [{"name": VARIABLE, "valueFrom": from_pod}]}),
            ),
            (
                None,
                json!({"env": [{"name": VARIABLE, "valueFrom": from_map}]}),
            ),
            (
                None,
                json!({"envFrom": [{"configMapRef": {"name": "settings"}}]}),
            ),
            (None, json!({"args": ["--namespace=$(WHERE)"]})),
            (None, json!({"args": ["--namespace"]})),
            (None, json!({"env": variable("")})),
        ] {
            container["name"] = json!(CONTAINER);
            let other = json!({"name": "other", "args": ["--namespace=wrong"]});
            let found = scope_of(&deployment(&json!([other, container]))).ok();
            let expected = expected.map(|namespace: Option<&str>| {
                namespace.map_or(Scope::Cluster, |name| Scope::Namespace(name.to_owned()))
            });
            assert_eq!(found, expected, "{container}");
        }
        let only = json!([{"name": "renamed", "args": ["--namespace=meadow"]}]);
        let found = scope_of(&deployment(&only)).unwrap();
        assert_eq!(found, Scope::Namespace("meadow".to_owned()));
        assert!(scope_of(&deployment(&json!([]))).is_err());
    }
}
