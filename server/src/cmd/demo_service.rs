//! The small service that the demo breaks and restarts: `/health` in the usual form, `/metrics` for Prometheus.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Serves until killed.
///
/// # Errors
/// If it cannot listen.
pub(crate) fn run(listen: SocketAddr) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async move {
        let listener = TcpListener::bind(listen).await?;
        let started = Instant::now();
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(async move {
                // A peer that goes away takes its answer with it.
                drop(answer(stream, started).await);
            });
        }
    })
}

async fn answer(mut stream: TcpStream, started: Instant) -> std::io::Result<()> {
    let mut head = [0_u8; 1024];
    let read = stream.read(&mut head).await?;
    let path = String::from_utf8_lossy(&head[..read]).split(' ').nth(1).unwrap_or_default().to_owned();
    let uptime = started.elapsed().as_secs();
    let (status, kind, body) = match path.as_str() {
        "/health" => {
            let body = serde_json::json!({
                "status": "healthy",
                "version": env!("CARGO_PKG_VERSION"),
                "timestamp": timestamp(),
                "checks": { "self": { "status": "healthy" } },
                "uptime": uptime,
            });
            ("200 OK", "application/json", body.to_string())
        }
        "/metrics" => {
            let body = format!("# TYPE demo_uptime_seconds gauge\ndemo_uptime_seconds {uptime}\n");
            ("200 OK", "text/plain; version=0.0.4", body)
        }
        _ => ("404 Not Found", "text/plain", "only /health and /metrics are here\n".to_owned()),
    };
    let length = body.len();
    let answer = format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

fn timestamp() -> String {
    use domain::time::Clock;
    domain::time::SystemClock.now().to_string()
}
