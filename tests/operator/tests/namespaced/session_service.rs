//! The operator's SessionService lists the Sessions of its namespaces, and tells of changes.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use atomix_operator::check::{CheckArgs, check};
use atomix_operator_tests::resources;
use atomix_operator_tests::samples;
use atomix_operator_tests::supervised::Supervised;
use atomix_operator_tests::test_bed::TestBed;
use atomix_operator_tests::workload::{self, LIMIT};
use atomix_proto::runtime::v1::session_service_client::SessionServiceClient;
use atomix_proto::runtime::v1::session_status::State;
use atomix_proto::runtime::v1::{
    GetSessionRequest, ListSessionsRequest, ListSessionsResponse, PrimitiveId, Session, SessionId,
};
use kube::api::DeleteParams;
use serde_json::json;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

type Service = SessionServiceClient<Channel>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_session_service_lists_finds_and_watches_the_sessions() -> Result<()> {
    workload::run("listed", None, live).await?;
    Ok(())
}

async fn live(bed: &TestBed, operator: &mut Supervised<'_>) -> Result<()> {
    resources::create(&bed.stores(), samples::store_of_driver("rose", "memory")).await?;
    let mut bees = samples::session("bees", "rose", "hive");
    bees["metadata"]["labels"] = json!({"colour": "yellow"});
    bees["spec"]["primitive"] = json!("honey*");
    bees["spec"]["config"] = json!({"cache": {"enabled": true}});
    resources::create(&bed.sessions(), bees).await?;
    let mut wasps = samples::session("wasps", "rose", "nest");
    wasps["spec"]["kind"] = json!("map");
    resources::create(&bed.sessions(), wasps).await?;

    let mut service = SessionServiceClient::new(connect(operator.api()).await?);
    let listed = operator
        .until("both Sessions to be opened", LIMIT, async || {
            let listed = list(&mut service.clone(), "").await?;
            let opened = |session: &&Session| state(session) == State::Opened;
            ensure!(
                names(&listed)
                    == [
                        format!("{}/bees", bed.namespace()),
                        format!("{}/wasps", bed.namespace())
                    ]
                    && listed.iter().filter(opened).count() == 2,
                "{listed:?}"
            );
            Ok(listed)
        })
        .await?;
    let bees = listed.first().context("no session")?;
    let meta = bees.meta.as_ref().context("no meta")?;
    ensure!(
        meta.version > 0
            && meta
                .labels
                .get("colour")
                .is_some_and(|colour| colour == "yellow")
    );
    let spec = bees.spec.as_ref().context("no spec")?;
    ensure!(spec.kind == "counter", "{spec:?}");
    let config = spec.config.as_ref().context("no config")?;
    ensure!(config.type_url.ends_with("google.protobuf.Struct") && !config.value.is_empty());
    let maps = list(&mut service, "map").await?;
    ensure!(
        names(&maps) == [format!("{}/wasps", bed.namespace())],
        "{maps:?}"
    );

    check_command(operator.admin()).await?;
    tells_of_itself(connect(operator.api()).await?).await?;
    find(bed, &mut service).await?;
    watch(bed, &mut service).await
}

/// What `helm test` runs.
async fn check_command(address: SocketAddr) -> Result<()> {
    let args = |address: String| CheckArgs {
        address,
        timeout: 2,
    };
    check(&args(address.to_string())).await?;
    for address in ["127.0.0.1:1", "not an address"] {
        let failed = check(&args(address.to_owned())).await;
        let told = failed.err().map(|error| error.to_string());
        ensure!(
            told.as_ref()
                .is_some_and(|told| told.contains("is not ready within 2 s")),
            "{told:?}"
        );
    }
    Ok(())
}

/// The port names its services, and says of each that it serves.
async fn tells_of_itself(channel: Channel) -> Result<()> {
    let list = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = ServerReflectionClient::new(channel.clone())
        .server_reflection_info(tokio_stream::once(list))
        .await?
        .into_inner();
    let answer = answers.message().await?.context("no answer")?;
    let Some(MessageResponse::ListServicesResponse(listed)) = answer.message_response else {
        bail!("no list of services: {answer:?}");
    };
    let mut names: Vec<String> = listed.service.into_iter().map(|one| one.name).collect();
    names.sort();
    let expected = [
        "atomix.operator.v1.Stores",
        "atomix.runtime.v1.SessionService",
        "grpc.health.v1.Health",
    ];
    ensure!(names == expected, "{names:?}");
    let mut health = HealthClient::new(channel);
    for (name, known) in [
        ("", true),
        (expected[0], true),
        (expected[1], true),
        ("atomix.runtime.v1.Runtime", false),
    ] {
        let service = name.to_owned();
        let answer = health.check(HealthCheckRequest { service }).await;
        let serves = answer.is_ok_and(|answer| answer.get_ref().status() == ServingStatus::Serving);
        ensure!(serves == known, "{name:?}");
    }
    Ok(())
}

async fn connect(address: SocketAddr) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    Ok(endpoint.connect().await?)
}

async fn find(bed: &TestBed, service: &mut Service) -> Result<()> {
    let whole = format!("{}/bees", bed.namespace());
    for (name, primitive, expected) in [
        (whole.as_str(), "honey*", Ok(())),
        (&whole, "", Ok(())),
        ("bees", "", Ok(())),
        ("bees", "wax", Err(Code::NotFound)),
        ("ants", "", Err(Code::NotFound)),
        ("elsewhere/bees", "", Err(Code::NotFound)),
        ("", "honey*", Err(Code::InvalidArgument)),
    ] {
        let id = SessionId {
            name: name.to_owned(),
            primitive: Some(PrimitiveId {
                id: primitive.to_owned(),
            }),
        };
        let request = GetSessionRequest {
            session_id: Some(id),
        };
        let found = service.get_session(request).await;
        let found = match found {
            Ok(found) => {
                let session = found.into_inner().session.context("no session")?;
                ensure!(names(&[session]) == [whole.as_str()], "{name}");
                Ok(())
            }
            Err(status) => Err(status.code()),
        };
        ensure!(found == expected, "{name:?} {primitive:?}: {found:?}");
    }
    let nothing = service.get_session(GetSessionRequest::default()).await;
    let code = nothing.err().map(|status| status.code());
    ensure!(code == Some(Code::InvalidArgument), "{code:?}");
    Ok(())
}

async fn watch(bed: &TestBed, service: &mut Service) -> Result<()> {
    // A stream begins with what is, and a unary watch ends by its deadline or at a change.
    let mut stream = service
        .watch_sessions(ListSessionsRequest::default())
        .await?
        .into_inner();
    let first = within(stream.message())
        .await??
        .context("no first answer")?;
    ensure!(first.sessions.len() == 2, "{first:?}");

    let unchanged = within(async {
        loop {
            let mut patient = Request::new(ListSessionsRequest {
                r#type: "map".to_owned(),
                watch: true,
            });
            patient.set_timeout(Duration::from_millis(500));
            match service.list_sessions(patient).await {
                // On a busy machine the answer may come later than the 25 ms that it is early.
                Err(late) if late.code() == Code::Cancelled => {}
                answer => return answer,
            }
        }
    })
    .await??
    .into_inner();
    ensure!(unchanged.sessions.len() == 1, "{unchanged:?}");

    bed.sessions()
        .delete("wasps", &DeleteParams::default())
        .await?;
    within(async {
        loop {
            let next: ListSessionsResponse = stream.message().await?.context("the stream ended")?;
            if next.sessions.len() == 1 {
                return anyhow::Ok(());
            }
        }
    })
    .await?
}

async fn within<T>(work: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(LIMIT, work)
        .await
        .context("waited in vain for the SessionService")
}

async fn list(service: &mut Service, kind: &str) -> Result<Vec<Session>> {
    let request = ListSessionsRequest {
        r#type: kind.to_owned(),
        watch: false,
    };
    Ok(service.list_sessions(request).await?.into_inner().sessions)
}

fn names(sessions: &[Session]) -> Vec<String> {
    let ids = sessions
        .iter()
        .filter_map(|session| session.meta.as_ref()?.id.as_ref());
    ids.map(|id| id.name.clone()).collect()
}

fn state(session: &Session) -> State {
    session
        .status
        .as_ref()
        .map_or(State::None, |status| status.state())
}
