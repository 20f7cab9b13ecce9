//! A wire between client and sidecar that can be cut, or lose what the sidecar answers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub struct Proxy {
    pub address: SocketAddr,
    state: Arc<State>,
    accepting: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    loses_answers: AtomicBool,
    /// From clients.
    bytes: AtomicU64,
    cuts: watch::Sender<u64>,
}

impl Proxy {
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let accepting = {
            let state = Arc::clone(&state);
            tokio::spawn(async move {
                loop {
                    let (client, _) = listener.accept().await.unwrap();
                    tokio::spawn(connect(client, target, Arc::clone(&state)));
                }
            })
        };
        Self {
            address,
            state,
            accepting,
        }
    }

    /// Ends all connections.
    pub fn cut(&self) {
        self.state.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Whether what the sidecar sends arrives nowhere.
    pub fn lose_answers(&self, lose: bool) {
        self.state.loses_answers.store(lose, Ordering::SeqCst);
    }

    /// How many bytes clients have sent.
    pub fn bytes(&self) -> u64 {
        self.state.bytes.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn connect(client: TcpStream, target: SocketAddr, state: Arc<State>) {
    let mut cuts = state.cuts.subscribe();
    let sidecar = TcpStream::connect(target).await.unwrap();
    for stream in [&client, &sidecar] {
        stream.set_nodelay(true).unwrap();
    }
    let (from_client, to_client) = client.into_split();
    let (from_sidecar, to_sidecar) = sidecar.into_split();
    let sent = |count| {
        state.bytes.fetch_add(count, Ordering::SeqCst);
        true
    };
    let arrives = |_| !state.loses_answers.load(Ordering::SeqCst);
    tokio::select! {
        () = pump(from_client, to_sidecar, sent) => {}
        () = pump(from_sidecar, to_client, arrives) => {}
        _ = cuts.changed() => {}
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, passes: impl Fn(u64) -> bool) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = match from.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(count) => count,
        };
        if passes(count as u64) && to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
