//! What all rounds of a sweep share: the programs that steps carry out, their ledger, and the rules as they stand at the moment.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use harness::world::{Ledger, Plan, World};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::kinds::{KINDS, Kind};

/// Does the work of a step, `KIND HOW WORD`, and writes `KIND WORD` into the ledger when it does. `late` does nothing the first time, and nobody can tell by
/// how it ends.
const WORK: &str = r#"
line="$1 $3"
write() { echo "$line" >> "$ledger"; }
before=$(grep -cx "$line" "$ledger")
case "$2" in
well) write ;;
badly) write; exit 3 ;;
well-at-last) write; [ "$before" -gt 0 ] ;;
hangs) write; exec sleep 60 ;;
hangs-at-first) write; [ "$before" -gt 0 ] || exec sleep 60 ;;
late) if [ -e "$dir/late.$1" ]; then write; else : > "$dir/late.$1"; fi; exec sleep 60 ;;
gated) write; for _ in $(seq 4000); do [ "$3" = first ] && [ ! -e "$dir/open.$1" ] || exit 0; sleep 0.3; done; exit 4 ;;
esac
"#;
/// Whether the work was done, as the check of a step tells it: `KIND WORD`.
const CHECK: &str = r#"grep -qx "$1 $2" "$ledger" || exit 10"#;

/// What happens outside of the server, and what it is told to do.
pub(super) struct Stage {
    pub(super) ledger: Ledger,
    /// The store, as the server has it.
    pub(super) url: String,
    /// Answers well as long as the server does.
    pub(super) well: String,
    /// Whoever is asked there writes the question down and says nothing.
    silent: String,
    work: PathBuf,
    check: PathBuf,
    /// Where gates are opened.
    dir: PathBuf,
    base: Value,
    round: u64,
    versions: BTreeMap<&'static str, u32>,
    held_back: bool,
}

impl Stage {
    /// A stage for this plan, which becomes one that runs the kinds of runs.
    pub(super) async fn set(plan: &mut Plan) -> anyhow::Result<Self> {
        let ledger = plan.ledger()?;
        let dir = plan.dir().join("stage");
        let program = |text: &str| {
            let (lines, dir) = (plan.dir().join("ledger"), dir.display());
            format!("#!/bin/sh\nledger='{}'\ndir='{dir}'\n{text}", lines.display())
        };
        let (work, check) = (plan.script("work", &program(WORK))?, plan.script("check", &program(CHECK))?);
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let silent = format!("http://{}", listener.local_addr()?);
        tokio::spawn(hear(listener, ledger.clone()));
        let listen = plan.config["server"]["listen"].as_str().context("it listens nowhere")?;
        let store = plan.config["store"]["url"].as_str();
        let url = store.map_or_else(|| format!("sqlite:{}", plan.dir().join("data/watchkeeper.db").display()), str::to_owned);
        let well = format!("http://{listen}/livez");
        plan.merge(json!({ "programs": [work, check], "log": { "level": "info,handlers=debug" }, "routes": null, "runbooks": null }));
        let base = plan.config.clone();
        Ok(Self { ledger, url, well, silent, work, check, dir, base, round: 0, versions: BTreeMap::new(), held_back: false })
    }

    /// Makes room for a round, for a server that does not run.
    pub(super) fn clear(&mut self, world: &World, round: u64) -> anyhow::Result<()> {
        self.ledger.clear()?;
        fs::remove_dir_all(&self.dir).ok();
        fs::create_dir(&self.dir)?;
        self.round = round;
        self.write(world)
    }

    /// Lets those go on that wait for it.
    pub(super) fn open(&self, kind: &Kind) -> anyhow::Result<()> {
        fs::write(self.gate(kind), "").context("the gate")
    }

    pub(super) fn is_open(&self, kind: &Kind) -> bool {
        self.gate(kind).exists()
    }

    fn gate(&self, kind: &Kind) -> PathBuf {
        self.dir.join(format!("open.{}", kind.name))
    }

    /// How often the runbook of a kind was changed.
    pub(super) fn version(&self, kind: &Kind) -> u32 {
        self.versions.get(kind.name).copied().unwrap_or_default()
    }

    /// Changes the runbook of a kind, and has the server read it.
    pub(super) async fn change(&mut self, world: &World, kind: &Kind) -> anyhow::Result<()> {
        *self.versions.entry(kind.name).or_default() += 1;
        self.write(world)?;
        let reload = world.http().post(format!("{}/-/reload", world.url())).bearer_auth(world.token("ann").await?);
        let answer = reload.send().await?;
        ensure!(answer.status().is_success(), "the reload was answered with {}", answer.status());
        Ok(())
    }

    /// From now on, or not any more, runs of a kind do not start: what would be written down of their start is refused by the database.
    pub(super) async fn hold_back(&mut self, kind: &Kind, held: bool) -> anyhow::Result<()> {
        if self.held_back == held {
            return Ok(());
        }
        let postgres = self.url.starts_with("postgres");
        let condition = format!("new.action = 'run.start' and new.detail like '%\"runbook\":\"{}\"%'", kind.name);
        let statements = match (held, postgres) {
            (true, false) => format!(
                "create trigger if not exists hold_back before insert on audit when {condition} begin select raise(abort, 'held back'); end"
            ),
            (true, true) => format!(
                "create or replace function hold_back() returns trigger language plpgsql as $$ begin raise exception 'held back'; end $$; \
                 create or replace trigger hold_back before insert on audit for each row when ({condition}) execute function hold_back()"
            ),
            (false, false) => "drop trigger if exists hold_back".to_owned(),
            (false, true) => "drop trigger if exists hold_back on audit".to_owned(),
        };
        harness::sql(&self.url, &statements).await?;
        self.held_back = held;
        Ok(())
    }

    /// A step that does its work by the program. It may have to wait for as long as several servers take to live.
    pub(super) fn step(&self, kind: &Kind, id: &str, word: &str, target: &str) -> Value {
        let args = json!([kind.name, kind.work, word, self.version(kind).to_string()]);
        json!({ "id": id, "uses": "command", "with": { "program": self.work, "args": args, "target": target }, "timeout": "15m" })
    }

    /// How the check of such a step is written.
    pub(super) fn check(&self, kind: &Kind, word: &str) -> Value {
        json!({ "program": self.check, "args": [kind.name, word] })
    }

    /// A step that asks and is not answered.
    pub(super) fn question(&self, kind: &Kind, word: &str) -> Value {
        let url = format!("{}/{}/{word}", self.silent, kind.name);
        let with = json!({ "method": "POST", "url": url, "timeout": "14m", "target": self.target(kind) });
        json!({ "id": word, "uses": "http.request", "with": with, "timeout": "15m" })
    }

    /// The target of a kind: of one that its guards count on, another one in each round.
    pub(super) fn target(&self, kind: &Kind) -> String {
        if kind.is_counted { format!("{}-{}", kind.name, self.round) } else { kind.name.to_owned() }
    }

    /// Writes the rules, in one stroke: the server looks at them by itself, too.
    fn write(&self, world: &World) -> anyhow::Result<()> {
        let mut config = self.base.clone();
        config["routes"] = KINDS.iter().map(Kind::route).collect();
        config["runbooks"] = KINDS.iter().map(|kind| (kind.name.to_owned(), kind.runbook(self))).collect();
        for kind in KINDS {
            config["targets"][self.target(kind)] = json!({ "kind": "systemd", "unit": format!("{}.service", kind.name) });
        }
        let new = world.dir().join("new.yaml");
        fs::write(&new, config.to_string())?;
        fs::rename(new, world.config().join("watchkeeper.yaml")).context("the configuration")
    }
}

/// Writes down who asked, and keeps the connection without a word for as long as the other side does.
async fn hear(listener: TcpListener, ledger: Ledger) {
    while let Ok((stream, _)) = listener.accept().await {
        let ledger = ledger.clone();
        tokio::spawn(async move { keep_silent(stream, &ledger).await });
    }
}

async fn keep_silent(mut stream: TcpStream, ledger: &Ledger) -> anyhow::Result<()> {
    let mut asked = vec![0; 4096];
    let length = stream.read(&mut asked).await?;
    let text = String::from_utf8_lossy(&asked[..length]).into_owned();
    let path = text.split(' ').nth(1).context("no request")?;
    ledger.add(&path.trim_start_matches('/').replace('/', " "))?;
    while stream.read(&mut asked).await? > 0 {}
    stream.shutdown().await.context("it is closed")
}
