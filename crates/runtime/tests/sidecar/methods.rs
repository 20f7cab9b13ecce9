//! Every method of every kind is served, and nothing else is.

use std::time::Duration;

use atomix_proto::FILE_DESCRIPTOR_SET;
use atomix_proto::runtime::counter::v1::GetRequest;
use http::uri::PathAndQuery;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic::client::Grpc;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use crate::harness::{TestSidecar, id, within};

/// The control API lies beside the packages of the kinds.
const CONTROL: &str = "atomix.runtime.v1";

struct Method {
    path: String,
    streams: bool,
}

fn methods_of_all_kinds() -> Vec<Method> {
    let files = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let mut methods = Vec::new();
    for file in &files.file {
        let package = file.package();
        if !package.starts_with("atomix.runtime.") || package == CONTROL {
            continue;
        }
        for service in &file.service {
            for method in &service.method {
                methods.push(Method {
                    path: format!("/{package}.{}/{}", service.name(), method.name()),
                    streams: method.server_streaming(),
                });
            }
        }
    }
    methods
}

/// Calls a method with nothing but the primitive's id, with which every request begins.
async fn call(sidecar: &TestSidecar, path: &str, streams: bool) -> Result<(), Status> {
    let mut grpc = Grpc::new(sidecar.application().await);
    grpc.ready().await.unwrap();
    let path: PathAndQuery = path.parse().unwrap();
    let mut request = Request::new(GetRequest { id: id("someone") });
    request.set_timeout(Duration::from_secs(20));
    // It takes every message for an empty one.
    let codec = ProstCodec::<GetRequest, ()>::default();
    if streams {
        let answer = grpc.server_streaming(request, path, codec).await;
        answer.map(|_| ())
    } else {
        grpc.unary(request, path, codec).await.map(|_| ())
    }
}

#[tokio::test]
async fn every_method_of_every_kind_answers_and_none_is_unimplemented() {
    let sidecar = TestSidecar::with_memory_store().await;
    let methods = methods_of_all_kinds();
    assert!(methods.iter().any(|method| method.streams));
    for method in &methods {
        let answer = within(&method.path, call(&sidecar, &method.path, method.streams)).await;
        let code = answer.as_ref().err().map(Status::code);
        let expected = [
            None,
            // A request that holds nothing.
            Some(Code::InvalidArgument),
            Some(Code::NotFound),
            Some(Code::OutOfRange),
            Some(Code::AlreadyExists),
            Some(Code::Aborted),
        ];
        assert!(expected.contains(&code), "{}: {answer:?}", method.path);
        if method.streams {
            assert_eq!(code, None, "{}", method.path);
        }
    }
    sidecar.stop().await;
}

#[tokio::test]
async fn what_runtimes_read_streams_with_is_no_method_of_the_application_api() {
    let sidecar = TestSidecar::with_memory_store().await;
    for path in [
        "/atomix.runtime.map.v1.Map/Page",
        "/atomix.runtime.list.v1.List/Page",
        "/atomix.runtime.value.v1.Value/Page",
        "/atomix.runtime.map.v1.Maps/Get",
        "/atomix.runtime.sundial.v1.Sundial/Get",
    ] {
        let status = call(&sidecar, path, false).await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented, "{path}");
        assert!(status.message().contains("does not exist"), "{status}");
    }
    sidecar.stop().await;
}
