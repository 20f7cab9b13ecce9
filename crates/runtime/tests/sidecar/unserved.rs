//! Kinds that no driver serves yet: every method of every one answers, and says so.

use atomix_proto::FILE_DESCRIPTOR_SET;
use atomix_proto::runtime::counter::v1::GetRequest;
use http::uri::PathAndQuery;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic::client::Grpc;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use crate::harness::{TestSidecar, id};

const SERVED: &str = "atomix.runtime.counter.v1";
/// The control API lies beside the packages of the kinds.
const CONTROL: &str = "atomix.runtime.v1";

struct Method {
    package: String,
    path: String,
    streams: bool,
}

fn methods_of_unserved_kinds() -> Vec<Method> {
    let files = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let mut methods = Vec::new();
    for file in &files.file {
        let package = file.package();
        let is_kind = package.starts_with("atomix.runtime.") && package != CONTROL;
        if !is_kind || package == SERVED {
            continue;
        }
        for service in &file.service {
            for method in &service.method {
                methods.push(Method {
                    package: package.to_owned(),
                    path: format!("/{package}.{}/{}", service.name(), method.name()),
                    streams: method.server_streaming(),
                });
            }
        }
    }
    methods
}

#[tokio::test]
async fn every_method_of_a_kind_that_no_driver_serves_answers_unimplemented() {
    let sidecar = TestSidecar::with_memory_store().await;
    let mut grpc = Grpc::new(sidecar.application().await);
    let methods = methods_of_unserved_kinds();
    let mut packages: Vec<&str> = methods.iter().map(|method| &*method.package).collect();
    packages.dedup();
    assert_eq!(packages.len(), 10, "{packages:?}");

    for method in &methods {
        grpc.ready().await.unwrap();
        let path: PathAndQuery = method.path.parse().unwrap();
        // Every request of the application API begins with the primitive's id.
        let request = Request::new(GetRequest { id: id("someone") });
        let codec = ProstCodec::<GetRequest, ()>::default();
        let answer: Result<(), Status> = if method.streams {
            let answer = grpc.server_streaming(request, path, codec).await;
            answer.map(|_| ())
        } else {
            grpc.unary(request, path, codec).await.map(|_| ())
        };
        let status = answer.expect_err(&method.path);
        assert_eq!(
            status.code(),
            Code::Unimplemented,
            "{}: {status}",
            method.path
        );
        assert!(
            status.message().contains("is not served"),
            "{}: {status}",
            method.path
        );
    }
    sidecar.stop().await;
}
