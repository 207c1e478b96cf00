//! A Redis server.

use anyhow::{Context, ensure};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::START;
use crate::{Cmd, Proc, free_port, temp_dir};

/// A Redis on loopback, without persistence unless the options say so.
#[derive(Debug)]
pub struct Redis {
    proc: Proc,
    dir: TempDir,
    port: u16,
    options: Vec<String>,
}

impl Redis {
    /// Starts with more options, for example `["--maxmemory", "10mb"]`.
    pub async fn start(options: &[&str]) -> anyhow::Result<Self> {
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        let (dir, port) = (temp_dir("redis")?, free_port());
        let proc = launch(&dir, port, &options).await?;
        Ok(Self { proc, dir, port, options })
    }

    /// The address for clients.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The process, to signal it or to read its log.
    pub fn proc(&mut self) -> &mut Proc {
        &mut self.proc
    }

    /// Sends one command and returns the raw answer (up to 64 KiB).
    pub async fn command(&self, words: &[&str]) -> anyhow::Result<String> {
        command(self.port, words).await
    }

    /// Starts it again with the same port and folder; kills it first when it runs.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.proc.kill9()?;
        self.proc = launch(&self.dir, self.port, &self.options).await?;
        Ok(())
    }
}

async fn launch(dir: &TempDir, port: u16, options: &[String]) -> anyhow::Result<Proc> {
    let server =
        Cmd::new("redis-server").args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", ""]).args(options).dir(dir.path());
    let mut proc = server.spawn()?;
    let pong = async || {
        let answer = command(port, &["PING"]).await?;
        ensure!(answer == "+PONG\r\n", "it answered {answer:?}");
        Ok(())
    };
    proc.until_ready(START, pong).await?;
    Ok(proc)
}

/// The protocol is simple enough: an array of bulk strings out, one answer back.
async fn command(port: u16, words: &[&str]) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let mut request = format!("*{}\r\n", words.len());
    for word in words {
        request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    stream.write_all(request.as_bytes()).await?;
    let mut answer = vec![0; 64 * 1024];
    let read = stream.read(&mut answer).await.context("reading the answer")?;
    Ok(String::from_utf8_lossy(&answer[..read]).into_owned())
}
