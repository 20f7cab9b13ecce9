//! From the API server's question about a pod to our answer. Pure.

use kube::core::DynamicObject;
use kube::core::admission::{AdmissionRequest, AdmissionResponse, AdmissionReview, Operation};
use thiserror::Error;

use super::inject::{Refusal, inject};
use super::sidecar::SidecarOptions;
use crate::context::Scope;

/// Why a question has no answer.
#[derive(Debug, Error)]
pub enum ReviewError {
    /// It is not what the API server sends.
    #[error("cannot read the AdmissionReview: {0}")]
    Unreadable(#[source] serde_json::Error),
    /// It asks nothing.
    #[error("the AdmissionReview has no request")]
    NoRequest,
    /// The answer has no JSON form.
    #[error("cannot write the patch: {0}")]
    Unwritable(String),
}

/// Answers one AdmissionReview. Pods of namespaces that the operator does not serve, and anything
/// but the creation of a pod, are let through as they are.
///
/// # Errors
/// When the question is none.
pub fn review(
    question: &[u8],
    scope: &Scope,
    options: &SidecarOptions,
) -> Result<AdmissionReview<DynamicObject>, ReviewError> {
    let review: AdmissionReview<DynamicObject> =
        serde_json::from_slice(question).map_err(ReviewError::Unreadable)?;
    let request: AdmissionRequest<DynamicObject> =
        review.try_into().map_err(|_none| ReviewError::NoRequest)?;
    let response = AdmissionResponse::from(&request);
    if !concerns_us(&request, scope) {
        return Ok(response.into_review());
    }
    let Some(object) = &request.object else {
        return Ok(response.into_review());
    };
    let pod = serde_json::to_value(object).map_err(ReviewError::Unreadable)?;
    let response = match inject(&pod, options) {
        Ok(injected) => {
            let patch = json_patch::diff(&pod, &injected);
            if patch.0.is_empty() {
                response
            } else {
                let written = response.with_patch(patch);
                written.map_err(|error| ReviewError::Unwritable(error.to_string()))?
            }
        }
        Err(refusal) => refused(response, &refusal),
    };
    Ok(response.into_review())
}

fn concerns_us(request: &AdmissionRequest<DynamicObject>, scope: &Scope) -> bool {
    let is_pod = request.kind.group.is_empty() && request.kind.kind == "Pod";
    let has_subresource = request
        .sub_resource
        .as_deref()
        .is_some_and(|name| !name.is_empty());
    let is_served = match scope {
        Scope::Cluster => true,
        Scope::Namespace(namespace) => request.namespace.as_deref() == Some(namespace),
    };
    is_pod && !has_subresource && is_served && request.operation == Operation::Create
}

fn refused(response: AdmissionResponse, refusal: &Refusal) -> AdmissionResponse {
    let mut response = response.deny(refusal);
    // The object is wrong, not the right to create it.
    response.result.code = 422;
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use serde_json::{Value, json};

    use super::*;
    use atomix_resources::labels::INJECT;

    fn question(change: impl FnOnce(&mut Value)) -> Value {
        let kind = json!({"group": "", "version": "v1", "kind": "Pod"});
        let mut question = json!({
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": {
                "uid": "7",
                "kind": kind,
                "resource": {"group": "", "version": "v1", "resource": "pods"},
                "namespace": "garden",
                "operation": "CREATE",
                "userInfo": {"username": "bee"},
                "object": {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "metadata": {
                        "generateName": "hive-",
                        "creationTimestamp": null,
                        "labels": {INJECT: "true", "a.b/c~d": "e"},
                    },
                    "spec": {"containers": [{"name": "hive", "image": "hive:1"}]},
                },
                "oldObject": null,
                "dryRun": true,
            },
        });
        change(&mut question["request"]);
        question
    }

    fn answer(question: &Value, scope: &Scope) -> Value {
        let options = SidecarOptions::default();
        let answer = review(question.to_string().as_bytes(), scope, &options).unwrap();
        serde_json::to_value(answer).unwrap()
    }

    fn patched(question: &Value, answer: &Value) -> Value {
        let bytes: Vec<u8> = serde_json::from_value(answer["response"]["patch"].clone()).unwrap();
        let patch: json_patch::Patch = serde_json::from_slice(&bytes).unwrap();
        let mut pod = question["request"]["object"].clone();
        json_patch::patch(&mut pod, &patch).unwrap();
        pod
    }

    #[test]
    fn the_answer_patches_the_very_object_that_was_asked_about() {
        let question = question(|_| {});
        for scope in [Scope::Cluster, Scope::Namespace("garden".to_owned())] {
            let answer = answer(&question, &scope);
            assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
            assert_eq!(answer["response"]["uid"], "7");
            assert_eq!(answer["response"]["allowed"], true);
            assert_eq!(answer["response"]["patchType"], "JSONPatch");
            let pod = patched(&question, &answer);
            assert_eq!(pod["spec"]["initContainers"][0]["name"], "atomix-runtime");
            assert_eq!(pod["metadata"]["labels"]["a.b/c~d"], "e");
            assert_eq!(pod["metadata"]["generateName"], "hive-");
        }
    }

    #[test]
    fn what_does_not_concern_us_is_let_through() {
        let elsewhere = Scope::Namespace("meadow".to_owned());
        for (question, scope) in [
            (question(|_| {}), &elsewhere),
            (
                question(|request| request["operation"] = "UPDATE".into()),
                &Scope::Cluster,
            ),
            (
                question(|request| request["subResource"] = "exec".into()),
                &Scope::Cluster,
            ),
            (
                question(|request| request["kind"]["kind"] = "Hive".into()),
                &Scope::Cluster,
            ),
            (
                question(|request| request["object"] = Value::Null),
                &Scope::Cluster,
            ),
            (
                question(|request| request["object"]["metadata"]["labels"] = json!({})),
                &Scope::Cluster,
            ),
        ] {
            let answer = answer(&question, scope);
            assert_eq!(answer["response"]["allowed"], true, "{question}");
            assert!(answer["response"].get("patch").is_none(), "{question}");
        }
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let on_host = question(|request| request["object"]["spec"]["hostNetwork"] = true.into());
        let answer = answer(&on_host, &Scope::Cluster);
        assert_eq!(answer["response"]["allowed"], false);
        assert_eq!(answer["response"]["status"]["code"], 422);
        let message = answer["response"]["status"]["message"].as_str().unwrap();
        assert!(message.contains("remove hostNetwork"), "{message}");
    }

    #[test]
    fn no_text_makes_it_panic() {
        let options = SidecarOptions::default();
        for text in [
            "",
            "{}",
            "null",
            "[]",
            "\u{0}",
            r#"{"kind":"AdmissionReview"}"#,
        ] {
            assert!(
                review(text.as_bytes(), &Scope::Cluster, &options).is_err(),
                "{text}"
            );
        }
    }
}
