//! A network namespace with one cable to this host, which can be pulled out: packets vanish, and nobody is told. Needs root and `ip`.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::Context;

use crate::Cmd;

const SOON: Duration = Duration::from_secs(20);
/// Namespaces of this process.
static MADE: AtomicU32 = AtomicU32::new(0);

/// A namespace of its own, removed on drop with its cable.
#[derive(Debug)]
pub struct Netns {
    name: String,
    block: u32,
}

impl Netns {
    /// A new one.
    ///
    /// # Errors
    /// If namespaces are not permitted here, or there is no `ip`.
    pub async fn new() -> anyhow::Result<Self> {
        remove_left_over().await?;
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let pid = std::process::id();
        // Processes and their namespaces get subnets of four addresses each below 10.213.0.0/16.
        let block = (pid.wrapping_mul(16) + number % 16) % 16_384;
        let netns = Self { name: format!("wk{pid}n{number}"), block };
        ip(&["netns", "add", &netns.name]).await?;
        let (near, far) = (netns.near(), netns.far());
        ip(&["link", "add", &near, "type", "veth", "peer", "name", &far, "netns", &netns.name]).await?;
        ip(&["addr", "add", &format!("{}/30", netns.host()), "dev", &near]).await?;
        ip(&["link", "set", &near, "up"]).await?;
        ip(&["-n", &netns.name, "addr", "add", &format!("{}/30", netns.address(2)), "dev", &far]).await?;
        ip(&["-n", &netns.name, "link", "set", "lo", "up"]).await?;
        netns.mend().await?;
        Ok(netns)
    }

    /// The address of this host, seen from inside; usable out here too, whether the cable is in or not.
    pub fn host(&self) -> String {
        self.address(1)
    }

    /// What starts a program inside: it stands before the program.
    pub fn prefix(&self) -> Vec<String> {
        ["ip", "netns", "exec", &self.name].map(str::to_owned).into()
    }

    /// Pulls the cable out.
    pub async fn cut(&self) -> anyhow::Result<()> {
        ip(&["-n", &self.name, "link", "set", &self.far(), "down"]).await.map(drop)
    }

    /// Puts it back.
    pub async fn mend(&self) -> anyhow::Result<()> {
        ip(&["-n", &self.name, "link", "set", &self.far(), "up"]).await.map(drop)
    }

    fn address(&self, n: u32) -> String {
        format!("10.213.{}.{}", self.block / 64, self.block % 64 * 4 + n)
    }

    /// Names of interfaces have at most fifteen characters.
    fn near(&self) -> String {
        format!("{}h", self.name)
    }

    fn far(&self) -> String {
        format!("{}i", self.name)
    }
}

impl Drop for Netns {
    #[expect(clippy::disallowed_methods, reason = "a drop cannot wait for the harness's own way of starting programs")]
    fn drop(&mut self) {
        for args in [["link", "del", &self.near()], ["netns", "del", &self.name]] {
            // What is left over harms nobody: it is of this process's name.
            drop(std::process::Command::new("ip").args(args).output());
        }
    }
}

/// Namespaces of test processes that were killed: each goes with its cable.
async fn remove_left_over() -> anyhow::Result<()> {
    let all = ip(&["netns", "list"]).await?;
    for name in all.lines().filter_map(|line| line.split_whitespace().next()) {
        let pid = name.strip_prefix("wk").and_then(|rest| rest.split_once('n')).and_then(|(pid, _)| pid.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            // Somebody else may do the same right now.
            drop(ip(&["netns", "del", name]).await);
        }
    }
    Ok(())
}

async fn ip(args: &[&str]) -> anyhow::Result<String> {
    Cmd::new("ip").args(args).run(SOON).await?.ok().with_context(|| format!("ip {}", args.join(" ")))
}
