//! A wire that can go dead: forwards TCP connections until told to stop, and then swallows everything without a word. It can also swallow single things
//! that are said on it, or hold back their answers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A forwarding port on loopback. It ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    open: watch::Sender<bool>,
    trap: Trap,
    task: JoinHandle<()>,
}

/// What is listened for.
#[derive(Clone, Debug, Default)]
struct Trap {
    /// A connection on which this is said goes dead.
    lost: watch::Sender<Option<String>>,
    /// The first connection on which these are said gets no answer.
    words: watch::Sender<Vec<String>>,
    sprung: watch::Sender<bool>,
}

impl Proxy {
    /// Forwards to `to`, a port on loopback.
    ///
    /// # Errors
    /// If no port can be had.
    pub async fn start(to: u16) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (open, gate) = watch::channel(true);
        let trap = Trap::default();
        let laid = trap.clone();
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(carry(near, to, gate.clone(), laid.clone()));
            }
        });
        Ok(Self { address, open, trap, task })
    }

    /// The port to connect to.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// From now on nothing passes, and nobody is told: connections stay open.
    pub fn go_dead(&self) {
        self.open.send_replace(false);
    }

    /// Everything passes again, what was held back too.
    pub fn come_back(&self) {
        self.let_the_answer_go();
        self.trap.lost.send_replace(None);
        self.open.send_replace(true);
    }

    /// From now on each connection on which this is said goes dead with it. The others are left alone.
    pub fn lose(&self, word: &str) {
        self.trap.lost.send_replace(Some(word.to_owned()));
    }

    /// The first connection on which these words are said, one after the other and each in a message of its own, gets no answer to the last of them,
    /// nor to anything later. What it says passes, and other connections are left alone.
    pub fn hold_the_answer(&self, words: &[&str]) {
        self.trap.sprung.send_replace(false);
        self.trap.words.send_replace(words.iter().map(|word| (*word).to_owned()).collect());
    }

    /// The answer that is held back passes, and those after it.
    pub fn let_the_answer_go(&self) {
        self.trap.words.send_replace(Vec::new());
    }

    /// Waits until they were said.
    ///
    /// # Errors
    /// If they are not within that time.
    pub async fn answer_is_held(&self, within: Duration) -> anyhow::Result<()> {
        let mut sprung = self.trap.sprung.subscribe();
        let waited = tokio::time::timeout(within, sprung.wait_for(|sprung| *sprung)).await;
        waited.context("nobody says it")?.map(drop).context("the wire is gone")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One connection.
#[derive(Clone)]
struct Wire {
    gate: watch::Receiver<bool>,
    trap: Trap,
    /// Whether its answers are held back.
    held: Arc<AtomicBool>,
}

async fn carry(near: TcpStream, to: u16, mut gate: watch::Receiver<bool>, trap: Trap) {
    if gate.wait_for(|open| *open).await.is_err() {
        return;
    }
    let Ok(far) = TcpStream::connect(("127.0.0.1", to)).await else { return };
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    let wire = Wire { gate, trap, held: Arc::default() };
    tokio::select! {
        () = wire.clone().ask(near_in, far_out) => {}
        () = wire.answer(far_in, near_out) => {}
    }
}

impl Wire {
    async fn ask(mut self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        let (mut buffer, mut said, mut lost) = (vec![0; 64 * 1024], 0, self.trap.lost.subscribe());
        loop {
            let Ok(read @ 1..) = from.read(&mut buffer).await else { return };
            let has = |word: &str| buffer[..read].windows(word.len()).any(|part| part == word.as_bytes());
            let words = self.trap.words.borrow().clone();
            if words.is_empty() {
                said = 0;
            }
            if words.get(said).is_some_and(|word| has(word)) {
                said += 1;
                if said == words.len() && !self.trap.sprung.send_replace(true) {
                    self.held.store(true, Ordering::SeqCst);
                }
            }
            if lost.borrow().as_ref().is_some_and(|word| has(word)) && lost.wait_for(Option::is_none).await.is_err() {
                return;
            }
            if self.gate.wait_for(|open| *open).await.is_err() || to.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    }

    async fn answer(mut self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        let (mut buffer, mut laid) = (vec![0; 64 * 1024], self.trap.words.subscribe());
        loop {
            let Ok(read @ 1..) = from.read(&mut buffer).await else { return };
            if self.held.load(Ordering::SeqCst) && laid.wait_for(Vec::is_empty).await.is_err() {
                return;
            }
            if self.gate.wait_for(|open| *open).await.is_err() || to.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    }
}
