//! Three etcd servers with their defaults (fsync on), and the one call that is measured: KV.Put of
//! a 256-byte value over 100,000 keys of 16 bytes.
//!
//! The two messages are written by hand from etcd's public API, so that the generator is the same
//! code on both sides.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use crate::load::Call;
use crate::servers::{Server, free_port, listening};

const KEYS: u64 = 100_000;
const VALUE: [u8; 256] = [7; 256];

#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {}

#[derive(Clone, PartialEq, prost::Message)]
struct StatusRequest {}

#[derive(Clone, PartialEq, prost::Message)]
struct ResponseHeader {
    #[prost(uint64, tag = "2")]
    member_id: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<ResponseHeader>,
    #[prost(uint64, tag = "4")]
    leader: u64,
}

/// A cluster of three servers.
#[derive(Debug)]
pub(crate) struct Etcd {
    _servers: Vec<Server>,
    /// host:port of the leader.
    pub(crate) leader: String,
}

impl Etcd {
    pub(crate) async fn start(binary: &Path, folder: &Path) -> anyhow::Result<Self> {
        let mut members = Vec::new();
        for index in 0..3 {
            members.push((format!("m{index}"), free_port()?, free_port()?));
        }
        let cluster: Vec<String> = members
            .iter()
            .map(|(name, _, peer)| format!("{name}=http://127.0.0.1:{peer}"))
            .collect();
        let mut servers = Vec::new();
        for (name, client, peer) in &members {
            let data: PathBuf = folder.join(name);
            let arguments = [
                format!("--name={name}"),
                format!("--data-dir={}", data.display()),
                format!("--listen-client-urls=http://127.0.0.1:{client}"),
                format!("--advertise-client-urls=http://127.0.0.1:{client}"),
                format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
                format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer}"),
                format!("--initial-cluster={}", cluster.join(",")),
                "--initial-cluster-state=new".to_owned(),
                "--log-level=error".to_owned(),
            ];
            servers.push(Server::start(
                binary,
                &arguments,
                &folder.join(format!("{name}.log")),
            )?);
        }
        for (_, client, _) in &members {
            listening(&format!("127.0.0.1:{client}")).await?;
        }
        for (_, client, _) in &members {
            let address = format!("127.0.0.1:{client}");
            if leads(&address).await? {
                return Ok(Self {
                    _servers: servers,
                    leader: address,
                });
            }
        }
        bail!("no etcd server leads")
    }
}

async fn leads(address: &str) -> anyhow::Result<bool> {
    let channel = Endpoint::from_shared(format!("http://{address}"))?
        .connect()
        .await?;
    let status: StatusResponse = unary(
        channel,
        "/etcdserverpb.Maintenance/Status",
        StatusRequest {},
    )
    .await
    .context("etcd does not tell its status")?;
    Ok(status
        .header
        .is_some_and(|header| header.member_id == status.leader))
}

/// One put.
pub(crate) fn put() -> &'static Call {
    &|channel, client, round| {
        Box::pin(async move {
            let key = (round * 7919 + client as u64 * 104_729) % KEYS;
            let request = PutRequest {
                key: Bytes::from(format!("key-{key:012}")),
                value: Bytes::from_static(&VALUE),
            };
            unary::<_, PutResponse>(channel, "/etcdserverpb.KV/Put", request).await?;
            Ok(())
        })
    }
}

async fn unary<Q, R>(channel: Channel, path: &'static str, request: Q) -> Result<R, Status>
where
    Q: prost::Message + Send + Sync + 'static,
    R: prost::Message + Default + Send + Sync + 'static,
{
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready()
        .await
        .map_err(|error| Status::unavailable(error.to_string()))?;
    let response = grpc
        .unary(
            Request::new(request),
            PathAndQuery::from_static(path),
            ProstCodec::<Q, R>::default(),
        )
        .await?;
    Ok(response.into_inner())
}
