//! HTTP at the cost of a system call: the sender must not be what is measured. And a chat platform that only notes when it was called.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What stands before a number in whatever is to be found again.
pub(super) const MARK: &str = "wkbench-";

/// A connection that is kept.
pub(super) struct Conn {
    to: SocketAddr,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
}

impl Conn {
    pub(super) fn new(to: SocketAddr) -> Self {
        Self { to, stream: None, buffer: Vec::with_capacity(4096) }
    }

    /// Sends a whole request and reads the answer; returns its status.
    ///
    /// # Errors
    /// If the connection breaks, or the answer is no HTTP.
    pub(super) async fn send(&mut self, request: &[u8]) -> io::Result<u16> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(self.to).await?;
                stream.set_nodelay(true)?;
                stream
            }
        };
        stream.write_all(request).await?;
        let message = read(&mut stream, &mut self.buffer).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let status = message.head.get(9..12).and_then(|code| code.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
        if !message.head.to_ascii_lowercase().contains("connection: close") {
            self.stream = Some(stream);
        }
        Ok(status)
    }
}

/// A request or an answer.
pub(super) struct Message {
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

/// Reads one message with its body; `None` at the end of the connection.
pub(super) async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<Option<Message>> {
    buffer.clear();
    let mut scanned = 0;
    loop {
        if let Some(end) = buffer[scanned..].windows(4).position(|four| four == b"\r\n\r\n").map(|at| scanned + at + 4) {
            let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                if name.eq_ignore_ascii_case("content-length") { value.trim().parse::<usize>().ok() } else { None }
            });
            let chunked = length.is_none() && head.to_ascii_lowercase().contains("transfer-encoding: chunked");
            while buffer.len() < end + length.unwrap_or(0) || chunked && !buffer.ends_with(b"0\r\n\r\n") {
                if stream.read_buf(buffer).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            return Ok(Some(Message { head, body: buffer[end..].to_vec() }));
        }
        scanned = buffer.len().saturating_sub(3);
        if stream.read_buf(buffer).await? == 0 {
            return if buffer.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
    }
}

/// A chat platform in Slack's words: every call is answered well; the first call about each number is noted.
#[derive(Clone, Debug, Default)]
pub(super) struct Room(Arc<Calls>);

#[derive(Debug, Default)]
struct Calls {
    posts: AtomicU64,
    updates: AtomicU64,
    first: Mutex<HashMap<u64, Instant>>,
}

impl Room {
    /// Starts it; returns its address.
    pub(super) async fn open() -> io::Result<(Self, SocketAddr)> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let room = Self::default();
        let this = room.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let room = this.clone();
                tokio::spawn(async move { room.serve(stream).await });
            }
        });
        Ok((room, address))
    }

    /// Posts and edits so far.
    pub(super) fn calls(&self) -> (u64, u64) {
        (self.0.posts.load(Ordering::SeqCst), self.0.updates.load(Ordering::SeqCst))
    }

    /// When each number was first heard of.
    pub(super) fn heard(&self) -> HashMap<u64, Instant> {
        self.0.first.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn serve(&self, mut stream: TcpStream) {
        let mut buffer = Vec::new();
        while let Ok(Some(message)) = read(&mut stream, &mut buffer).await {
            let at = Instant::now();
            let path = message.head.split(' ').nth(1).unwrap_or_default();
            let number = if path.ends_with("chat.update") { &self.0.updates } else { &self.0.posts };
            if path.contains("/chat.") {
                let n = number.fetch_add(1, Ordering::SeqCst);
                if let Some(mark) = find(&message.body) {
                    self.0.first.lock().unwrap_or_else(PoisonError::into_inner).entry(mark).or_insert(at);
                }
                if stream.write_all(&answer(n)).await.is_err() {
                    return;
                }
            } else if stream.write_all(&answer(0)).await.is_err() {
                return;
            }
        }
    }
}

fn answer(n: u64) -> Vec<u8> {
    let body = format!(
        r#"{{"ok":true,"channel":"CBENCH","ts":"1700000000.{n:06}","team_id":"TBENCH","team":"bench","user_id":"UBENCH","bot_id":"BBENCH","messages":[],"has_more":false}}"#
    );
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn find(body: &[u8]) -> Option<u64> {
    let at = body.windows(MARK.len()).position(|part| part == MARK.as_bytes())? + MARK.len();
    let digits: String = body[at..].iter().take_while(|byte| byte.is_ascii_digit()).map(|byte| char::from(*byte)).collect();
    digits.parse().ok()
}
