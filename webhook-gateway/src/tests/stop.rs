//! A served gateway: the stop in two steps, and certificates that change.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use domain::permission::Right;
use harness::eventually;
use harness::world::SOON;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::world::{BEARER, World};
use crate::{Connections, Stop, TlsFiles, serve};

/// A gateway on a free port.
pub(super) struct Served {
    pub(super) world: World,
    pub(super) address: SocketAddr,
    stop: Stop,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Served {
    pub(super) async fn start(world: World, bounds: Connections) -> Self {
        Self::with(world, bounds, None).await
    }

    async fn with(world: World, bounds: Connections, tls: Option<TlsFiles>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Stop { soft: world.stopping.clone(), ..Stop::default() };
        let task = tokio::spawn(serve(listener, tls, world.router.clone(), bounds, stop.clone()));
        Self { world, address, stop, task }
    }

    pub(super) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// A delivery whose head was read and whose body is waited for: the server says so.
    async fn begin(&self, length: usize) -> TcpStream {
        let mut begun = self.connect().await;
        let head = format!(
            "POST /webhook/alertmanager HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {BEARER}\r\nexpect: 100-continue\r\ncontent-length: {length}\r\n\r\n"
        );
        begun.write_all(head.as_bytes()).await.unwrap();
        let mut go_on = [0; 25];
        begun.read_exact(&mut go_on).await.unwrap();
        assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
        begun
    }

    async fn takes_nobody(&self) {
        let refused = async || {
            ensure!(TcpStream::connect(self.address).await.is_err(), "it takes new connections");
            Ok(())
        };
        eventually(SOON, refused).await.unwrap();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_soft_stop_finishes_what_has_begun_and_ends_streams() {
    let mut served = Served::start(World::new().await, Connections::default()).await;
    let token = served.world.token("gus", &[Right::View]).await;
    let mut stream = served.connect().await;
    let head = format!("GET /api/v1/stream HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut told = Vec::new();
    while !String::from_utf8_lossy(&told).contains("text/event-stream") {
        assert!(stream.read_buf(&mut told).await.unwrap() > 0, "{told:?}");
    }
    let body = r#"{"alerts":[]}"#;
    let mut begun = served.begin(body.len()).await;

    served.stop.soft.cancel();
    served.takes_nobody().await;
    begun.write_all(body.as_bytes()).await.unwrap();
    let mut answer = String::new();
    begun.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    stream.read_to_end(&mut told).await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), &mut served.task).await.unwrap().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hard_stop_waits_for_nobody() {
    let mut served = Served::start(World::new().await, Connections::default()).await;
    let _begun = served.begin(100).await;
    served.stop.soft.cancel();
    served.takes_nobody().await;
    assert!(!served.task.is_finished());
    served.stop.hard.cancel();
    tokio::time::timeout(Duration::from_secs(5), &mut served.task).await.unwrap().unwrap().unwrap();
}

/// Connects with only this certificate trusted.
async fn trusts(address: SocketAddr, certificate: &Path) -> bool {
    let pem = std::fs::read(certificate).unwrap();
    #[expect(clippy::disallowed_methods, reason = "the one client of this test, which trusts another certificate each time")]
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([reqwest::Certificate::from_pem(&pem).unwrap()]).build().unwrap();
    let answer = client.get(format!("https://localhost:{}/livez", address.port())).send().await;
    answer.is_ok_and(|answer| answer.status().is_success())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_read_again_when_the_files_change_and_a_bad_pair_changes_nothing() {
    let fixtures = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/tls"));
    let dir = tempfile::tempdir().unwrap();
    let put = |from: &str, to: &str| std::fs::write(dir.path().join(to), std::fs::read(fixtures.join(from)).unwrap()).unwrap();
    put("a.crt", "crt");
    put("a.key", "key");
    let files = TlsFiles { certificate: dir.path().join("crt"), key: dir.path().join("key"), every: Duration::from_millis(20) };
    let served = Served::with(World::new().await, Connections::default(), Some(files)).await;
    let (a, b) = (fixtures.join("a.crt"), fixtures.join("b.crt"));
    assert!(trusts(served.address, &a).await && !trusts(served.address, &b).await);
    put("b.crt", "crt");
    // Time in which it could be taken.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(trusts(served.address, &a).await, "certificate b does not go with key a");
    put("b.key", "key");
    let is_read = async || {
        ensure!(trusts(served.address, &b).await, "the new certificate was not read");
        Ok(())
    };
    eventually(SOON, is_read).await.unwrap();
    assert!(!trusts(served.address, &a).await);
}
