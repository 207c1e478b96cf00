//! A command that goes on while its server is away, be it killed or stopped as systemd stops it.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use harness::eventually;
use harness::world::{SOON, World};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{begun, descendants, is_alive, slow};

#[tokio::test]
async fn a_command_goes_on_while_its_server_is_away_and_its_result_is_taken() -> anyhow::Result<()> {
    harness::rounds("server killed or stopped while a command runs", 1, async |tally| {
        for killed in [true, false] {
            let (plan, ledger) = slow(&["until", "away"])?;
            let mut world = plan.start().await?;
            begun(&world, &ledger).await?;
            if killed {
                world.kill9()?;
            } else {
                // It does not wait for the command, which goes on for as long as nobody lets it go.
                Unit::read("watchkeeper.service")?.stop(&mut world).await?;
            }
            tally.faults += 1;
            world.start().await?;
            ledger.let_go("away")?;
            let run = world.run_in("succeeded", SOON).await?;
            let attempts: Vec<&Value> = run["attempts"].as_array().unwrap().iter().map(|attempt| &attempt["state"]).collect();
            assert_eq!(attempts, ["succeeded"], "killed: {killed}");
            tally.ledger(&ledger.lines(), &["until away"])?;
        }
        Ok(())
    })
    .await
}

/// systemd's stand-in: ends a server as `systemctl stop` and `restart` do with the unit that we ship.
///
/// Source: <https://www.freedesktop.org/software/systemd/man/latest/systemd.kill.html>.
struct Unit {
    mode: KillMode,
    /// Between TERM and KILL.
    patience: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KillMode {
    /// TERM to all of the unit's control group, and KILL to what is left.
    ControlGroup,
    /// TERM to the main process, and KILL to whatever else is left.
    Mixed,
    /// The main process alone.
    Process,
}

impl Unit {
    /// A unit in `deploy/`.
    fn read(name: &str) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(harness::repo().join("deploy").join(name))?;
        let value = |key: &str| text.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).next_back().map(str::trim);
        let mode = match value("KillMode") {
            Some("process") => KillMode::Process,
            Some("mixed") => KillMode::Mixed,
            // As without a word about it.
            Some("control-group") | None => KillMode::ControlGroup,
            Some(other) => anyhow::bail!("{name} has KillMode={other}"),
        };
        ensure!(value("KillSignal").is_none() && value("SendSIGKILL").is_none(), "{name} ends with more than this knows of");
        let patience = value("TimeoutStopSec").unwrap_or("90").parse().context("TimeoutStopSec")?;
        Ok(Self { mode, patience: Duration::from_secs(patience) })
    }

    /// Ends the server, and of its control group what the unit says. Who descends from the server stands for the group:
    /// nobody leaves a control group by a session of his own, and a shim adopts what its command leaves behind.
    async fn stop(&self, world: &mut World) -> anyhow::Result<()> {
        let server = i32::try_from(world.proc()?.pid()).ok().and_then(Pid::from_raw).context("no pid")?;
        let group = descendants(server);
        let asked = Instant::now();
        if self.mode == KillMode::ControlGroup {
            signal_all(&group, Signal::TERM);
        }
        world.stop().await?;
        let took = asked.elapsed();
        ensure!(took < self.patience, "systemd would have killed it: the stop took {took:?}");
        if self.mode != KillMode::Process {
            if self.mode == KillMode::ControlGroup {
                // What heard TERM gets time to end by it.
                let gone = async || {
                    ensure!(!group.iter().any(|process| is_alive(*process)), "some are left");
                    Ok(())
                };
                eventually(self.patience.saturating_sub(took), gone).await.ok();
            }
            signal_all(&group, Signal::KILL);
        }
        Ok(())
    }
}

/// Who is gone already hears nothing.
fn signal_all(pids: &[Pid], signal: Signal) {
    for pid in pids {
        kill_process(*pid, signal).ok();
    }
}
