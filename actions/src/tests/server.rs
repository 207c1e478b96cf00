//! A small HTTP server that answers as the test says, or misbehaves.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What it does with a request.
#[derive(Clone)]
pub(super) enum Reply {
    /// Status, further header lines, body.
    Answer(u16, String, String),
    /// Nothing, for long.
    Hang,
    /// Reads it and closes.
    Close,
    /// Half of what it announced, then closes.
    Half,
}

/// It listens on 127.0.0.1 and remembers what it was asked.
pub(super) struct Server {
    pub(super) port: u16,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub(super) async fn start(reply: Reply) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let notes = seen.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, reply.clone(), notes.clone()));
            }
        });
        Server { port, seen }
    }

    pub(super) async fn json(status: u16, body: &str) -> Server {
        Server::start(Reply::Answer(status, "content-type: application/json\r\n".to_owned(), body.to_owned())).await
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Heads and bodies of the requests so far.
    pub(super) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

async fn serve(mut stream: TcpStream, reply: Reply, seen: Arc<Mutex<Vec<String>>>) {
    let request = read(&mut stream).await;
    seen.lock().unwrap().push(request);
    let answer = match reply {
        Reply::Answer(status, headers, body) => format!("HTTP/1.1 {status} Said\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len()),
        Reply::Hang => {
            tokio::time::sleep(Duration::from_secs(60)).await;
            return;
        }
        Reply::Close => return,
        Reply::Half => "HTTP/1.1 200 Said\r\ncontent-length: 100\r\n\r\nhalf".to_owned(),
    };
    // A client that has gone away is its own business.
    let _ = stream.write_all(answer.as_bytes()).await;
}

async fn read(stream: &mut TcpStream) -> String {
    let mut bytes = vec![];
    loop {
        let mut buffer = [0; 4096];
        let n = stream.read(&mut buffer).await.unwrap_or(0);
        bytes.extend_from_slice(&buffer[..n]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let length = |head: &str| head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok());
        match text.split_once("\r\n\r\n") {
            Some((head, body)) if body.len() >= length(head).unwrap_or(0) => return text,
            _ if n == 0 => return text,
            _ => {}
        }
    }
}
