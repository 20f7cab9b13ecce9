//! Whether the caller may do all that an uninstall does, asked before any of it is done: an operator
//! that was stopped while its objects keep their finalizers would hold up their deletion.

use std::fmt::{Display, Formatter};

use anyhow::{Context as _, Result};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::api::PostParams;
use kube::{Api, Client};

use super::scope::Scope;

/// One call that is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Permission {
    verb: &'static str,
    group: &'static str,
    resource: &'static str,
    subresource: Option<&'static str>,
    /// `None` = in all of them.
    namespace: Option<String>,
    /// `None` = of any name.
    name: Option<String>,
}

impl Display for Permission {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} {}", self.verb, self.resource)?;
        if let Some(subresource) = self.subresource {
            write!(formatter, "/{subresource}")?;
        }
        if let Some(name) = &self.name {
            write!(formatter, " {name}")?;
        }
        match &self.namespace {
            Some(namespace) => write!(formatter, " in namespace {namespace}"),
            None => write!(formatter, " in the whole cluster"),
        }
    }
}

/// What letting go of `scope` needs, and stopping the Deployment if there is one.
pub(super) fn needed(
    scope: &Scope,
    operator_namespace: &str,
    deployment: Option<&str>,
) -> Vec<Permission> {
    let mut needed = Vec::new();
    if let Some(name) = deployment {
        for (verb, subresource) in [("get", None), ("patch", Some("scale"))] {
            needed.push(Permission {
                verb,
                group: "apps",
                resource: "deployments",
                subresource,
                namespace: Some(operator_namespace.to_owned()),
                name: Some(name.to_owned()),
            });
        }
        needed.push(Permission {
            verb: "list",
            group: "",
            resource: "pods",
            subresource: None,
            namespace: Some(operator_namespace.to_owned()),
            name: None,
        });
    }
    let (resources, namespace): (&[_], _) = match scope {
        Scope::Cluster => (&["sessions", "stores", "drivers"], None),
        Scope::Namespace(namespace) => (&["sessions", "stores"], Some(namespace)),
    };
    for resource in resources {
        for verb in ["list", "patch"] {
            needed.push(Permission {
                verb,
                group: atomix_resources::GROUP,
                resource,
                subresource: None,
                namespace: namespace.cloned(),
                name: None,
            });
        }
    }
    needed
}

/// Those that the caller does not have.
///
/// # Errors
/// When the API server does not tell.
pub(super) async fn missing(client: &Client, needed: &[Permission]) -> Result<Vec<String>> {
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let mut missing = Vec::new();
    for permission in needed {
        let answer = reviews
            .create(&PostParams::default(), &review(permission))
            .await
            .with_context(|| format!("cannot ask whether you may {permission}"))?;
        if !answer.status.is_some_and(|status| status.allowed) {
            missing.push(permission.to_string());
        }
    }
    Ok(missing)
}

fn review(permission: &Permission) -> SelfSubjectAccessReview {
    let attributes = ResourceAttributes {
        verb: Some(permission.verb.to_owned()),
        group: Some(permission.group.to_owned()),
        resource: Some(permission.resource.to_owned()),
        subresource: permission.subresource.map(str::to_owned),
        namespace: permission.namespace.clone(),
        name: permission.name.clone(),
        ..ResourceAttributes::default()
    };
    SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(attributes),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(scope: &Scope, deployment: Option<&str>) -> Vec<String> {
        let needed = needed(scope, "garden", deployment);
        needed.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_operator_of_one_namespace_needs_no_permission_beyond_it() {
        let meadow = Scope::Namespace("meadow".to_owned());
        assert_eq!(
            texts(&meadow, Some("tulip")),
            [
                "get deployments tulip in namespace garden",
                "patch deployments/scale tulip in namespace garden",
                "list pods in namespace garden",
                "list sessions in namespace meadow",
                "patch sessions in namespace meadow",
                "list stores in namespace meadow",
                "patch stores in namespace meadow",
            ]
        );
        assert_eq!(texts(&meadow, None).len(), 4, "nothing is to be stopped");
        let everywhere = texts(&Scope::Cluster, None);
        assert!(everywhere.contains(&"patch drivers in the whole cluster".to_owned()));
        assert_eq!(everywhere.len(), 6);
    }

    #[test]
    fn a_review_asks_for_what_is_needed() {
        let needed = needed(&Scope::Cluster, "garden", Some("tulip"));
        let asked = needed.get(1).map(|permission| review(permission).spec);
        let asked = asked.and_then(|spec| spec.resource_attributes);
        let expected = ResourceAttributes {
            verb: Some("patch".to_owned()),
            group: Some("apps".to_owned()),
            resource: Some("deployments".to_owned()),
            subresource: Some("scale".to_owned()),
            namespace: Some("garden".to_owned()),
            name: Some("tulip".to_owned()),
            ..ResourceAttributes::default()
        };
        assert_eq!(asked, Some(expected));
    }
}
