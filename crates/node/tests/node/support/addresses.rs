//! Where a node is reached, and what may be asked of it there.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use atomix_proto::multiraft::v1::node_client::NodeClient;
use atomix_proto::multiraft::v1::{
    BootstrapRequest, GetStatusRequest, GetStatusResponse, GroupStatus, JoinRequest, LeaveRequest,
    TransferLeadershipRequest,
};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

/// The addresses of one node, which it keeps when it is started anew.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    pub control: SocketAddr,
    pub peer: SocketAddr,
    pub admin: SocketAddr,
}

impl Addresses {
    /// Nobody else uses them.
    pub fn new() -> Self {
        let [control, peer, admin] = free_ports(own_address());
        Self {
            control,
            peer,
            admin,
        }
    }

    pub async fn control(&self) -> Result<NodeClient<Channel>, Status> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.control)).unwrap();
        let channel = endpoint
            .timeout(Duration::from_secs(10))
            .connect()
            .await
            .map_err(|error| Status::new(Code::Unavailable, error.to_string()))?;
        Ok(NodeClient::new(channel))
    }

    pub async fn status(&self) -> Result<GetStatusResponse, Status> {
        let mut control = self.control().await?;
        Ok(control.get_status(GetStatusRequest {}).await?.into_inner())
    }

    pub async fn bootstrap(&self, request: BootstrapRequest) -> Result<(), Status> {
        self.control().await?.bootstrap(request).await?;
        Ok(())
    }

    /// Calls Join and gives it so long.
    pub async fn join(&self, request: JoinRequest, patience: Duration) -> Result<(), Status> {
        let mut request = tonic::Request::new(request);
        request.set_timeout(patience);
        self.control().await?.join(request).await?;
        Ok(())
    }

    /// Calls Leave and gives it so long.
    pub async fn leave(&self, request: LeaveRequest, patience: Duration) -> Result<(), Status> {
        let mut request = tonic::Request::new(request);
        request.set_timeout(patience);
        self.control().await?.leave(request).await?;
        Ok(())
    }

    pub async fn transfer(&self, partition: u32, member: u64) -> Result<(), Status> {
        let request = TransferLeadershipRequest {
            partition_id: partition,
            member_id: member,
        };
        self.control().await?.transfer_leadership(request).await?;
        Ok(())
    }

    /// The partition's group as this node sees it; `None` when it does not answer or has none.
    pub async fn group(&self, partition: u32) -> Option<GroupStatus> {
        let status = self.status().await.ok()?;
        let mut groups = status.groups.into_iter();
        groups.find(|group| group.partition_id == partition)
    }

    /// Fetches a page of the admin server.
    pub async fn admin(&self, path: &str) -> String {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = tokio::net::TcpStream::connect(self.admin).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

/// A loopback address that nobody else uses, so that a port of it stays free between two processes.
fn own_address() -> IpAddr {
    let [a, b, c] = rand::random::<[u8; 3]>();
    IpAddr::V4(Ipv4Addr::new(127, a.max(1), b, c.clamp(1, 254)))
}

/// Three different ports: all are held until each is known.
fn free_ports(ip: IpAddr) -> [SocketAddr; 3] {
    let held = [(); 3].map(|()| TcpListener::bind((ip, 0)).unwrap());
    held.map(|listener| listener.local_addr().unwrap())
}
