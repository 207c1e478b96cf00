//! The wiring: from a configuration to a running server. `serve` and `demo` start the same one.

use std::net::TcpListener;
use std::sync::Arc;

use actions::{Executions, Library, Settings as ActionSettings, Supervisor};
use anyhow::Context;
use arc_swap::ArcSwap;
use bot::discord::Discord;
use bot::slack::Slack;
use domain::action::ActionCatalogue;
use domain::button::ButtonKeys;
use domain::chat::Chat;
use domain::id::StartId;
use domain::inbox::{HttpInbound, Inbox, Lookup};
use domain::redact::Redactor;
use domain::rules::RuleSet;
use domain::time::{Clock, SystemClock};
use handlers::{Cx, Wake, Worker};
use secrecy::ExposeSecret;
use store::{Options, Store};
use webhook_gateway::{
    Connections, ConsoleSettings, Gateway, Limits, LoginLinks, Settings as GatewaySettings, SourceTable, Stop as GatewayStop, TlsFiles,
};

use crate::agent::{Desk, Dispatch, Remote, Roll, Screen};
use crate::alone::alone;
use crate::audit::Sealer;
use crate::beat::HttpBeat;
use crate::bus::{self, Inbound, Link, Outbound};
use crate::config::Config;
use crate::keys;
use crate::lifecycle::Stop;
use crate::lookup::Answers;
use crate::probe::Probe;
use crate::reload::Reloader;
use crate::roles::Roles;
use crate::running::Running;

/// Accepts that may wait for a commit before more are told to come again.
const MOST_WAITING: usize = 4096;

/// How long a replica goes on taking connections after it was told to stop: whoever spreads the load asks every second or two.
const DRAIN: std::time::Duration = std::time::Duration::from_secs(3);

/// How often certificate files are looked at.
const TLS_LOOK: std::time::Duration = std::time::Duration::from_secs(5);

/// Starts a server.
pub(crate) struct App;

/// The platforms that are configured, from both sides.
#[derive(Default)]
struct Platforms {
    chats: Vec<Arc<dyn Chat>>,
    routes: Vec<Arc<dyn HttpInbound>>,
    discord: Option<Arc<Discord>>,
}

impl App {
    /// Opens everything that the configuration names, in the order in which one needs the other, and serves.
    ///
    /// # Errors
    /// Says what could not be opened and what to do.
    pub(crate) async fn start(config: Config, roles: Roles, stop: Stop) -> anyhow::Result<Running> {
        // First of all: what is counted before is shown nowhere.
        crate::recorder::install();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        std::fs::create_dir_all(&config.data_dir).with_context(|| format!("cannot make the data folder {}", config.data_dir.display()))?;
        let session_keys = keys::load(&config.keys.session, &config.data_dir, "session")?;
        let buttons = ButtonKeys::new(keys::load(&config.keys.button, &config.data_dir, "button")?).map_err(anyhow::Error::msg)?;
        let store = open_store(&config, &clock).await?;
        // From here on everybody's time is the store's, which replicas share.
        let clock = store.clock();
        keep_rules(&store, &config.rules, clock.now()).await?;
        let redactor = Arc::new(redactor(&config)?);
        let supervisor = Arc::new(Supervisor::open(&config.data_dir.join("children")).await?);
        if roles.worker {
            start_children(&supervisor, &config.rules).await;
        }
        let shim = vec!["/proc/self/exe".into(), actions::shim::WORD.into()];
        let executions = Executions::open(&config.data_dir.join("executions"), shim).context("cannot make the folder of executions")?;
        if roles.worker {
            executions.get_ready();
        }
        let library: Arc<dyn ActionCatalogue> = Arc::new(Library::new(ActionSettings {
            programs: config.actions.programs.clone(),
            systemctl: config.actions.systemctl.clone(),
            docker: config.actions.docker.clone(),
            egress: config.actions.egress.clone(),
            executions: Arc::new(executions),
            supervisor: Arc::clone(&supervisor),
            clock: Arc::clone(&clock),
            redactor: Arc::clone(&redactor),
        }));
        let link = config.nats.as_ref().map(|nats| Link::new(nats.link.clone()));
        let rules = Arc::new(ArcSwap::new(Arc::clone(&config.rules)));
        store.open_with(Arc::new(webhook_gateway::sources::Reader(Arc::clone(&rules))));
        let (roll, remote) = match (&config.agents, &link) {
            (Some(agents), Some(link)) => {
                let roll = Arc::new(Roll::new(agents, Arc::clone(&rules))?);
                let remote = Remote::new(agents, link.clone(), Arc::clone(&roll), store.clone(), Arc::clone(&clock))?;
                (Some(roll), Some(Arc::new(remote)))
            }
            _ => (None, None),
        };
        let library: Arc<dyn ActionCatalogue> = Arc::new(Dispatch::new(library, remote.clone()));
        let sources = Arc::new(ArcSwap::from_pointee(config.sources.clone()));
        let platforms = platforms(&config, &store, &rules, &clock)?;
        let wake = Arc::new(Wake::default());
        let mut tasks = Vec::new();
        let sealer = Arc::new(Sealer::open(&config, &store, &clock)?);
        tasks.push(tokio::spawn(Arc::clone(&sealer).run(stop.soft.clone())));

        let beat = match &config.heartbeat {
            Some(heartbeat) => {
                let beat = HttpBeat::new(heartbeat.url.expose_secret(), signed(heartbeat.every))?;
                Some(Arc::new(beat) as Arc<dyn handlers::Beat>)
            }
            None => None,
        };
        let cx = Cx {
            store: store.clone(),
            rules: Arc::clone(&rules),
            actions: library,
            chats: platforms.chats.clone(),
            clock: Arc::clone(&clock),
            buttons,
            redactor,
            beat,
            bus: outbound(&config, link.as_ref(), &store),
            wake: Arc::clone(&wake),
            retention: config.retention,
            claim: handlers::Claim::default(),
        };
        if let (Some(roll), Some(link)) = (&roll, &link) {
            tasks.push(tokio::spawn(Arc::clone(roll).listen(link.clone(), stop.soft.clone())));
            let screen = Screen::new(Arc::clone(roll), store.clone(), Arc::clone(&cx.redactor));
            tasks.push(tokio::spawn(screen.listen(link.clone(), stop.soft.clone())));
        }
        if roles.worker {
            tasks.push(tokio::spawn(Worker::new(cx).run()));
            tasks.extend(remote.map(|remote| tokio::spawn(Desk::new(remote, stop.soft.clone()).run())));
        }

        if let (Some(nats), Some(link), true) = (&config.nats, &link, roles.gateway) {
            let (rules, sources, clock) = (Arc::clone(&rules), Arc::clone(&sources), Arc::clone(&clock));
            let inbound = Inbound::new(nats.clone(), link.clone(), store.clone(), rules, sources, clock, stop.soft.clone());
            tasks.push(tokio::spawn(inbound.run()));
            if let Some(ingest) = &nats.ingest {
                tasks.push(tokio::spawn(bus::Taker::new(ingest.clone(), link.clone(), store.clone(), stop.soft.clone()).run()));
            }
        }
        if let Some(discord) = platforms.discord.clone().filter(|_| roles.bot) {
            tasks.push(tokio::spawn(register_commands(discord, stop.soft.clone())));
        }
        let socket = roles.bot && config.discord.as_ref().is_some_and(|discord| discord.gateway);
        if let Some(discord) = platforms.discord.clone().filter(|_| socket) {
            tasks.push(tokio::spawn(alone(store.clone(), "discord.gateway", stop.soft.clone(), move |ours| {
                listen(Arc::clone(&discord), ours)
            })));
        }

        let reloader = Arc::new(Reloader::new(Arc::clone(&rules), Arc::clone(&sources), store.clone(), Arc::clone(&supervisor)));
        let listener = TcpListener::bind(config.server.listen)
            .with_context(|| format!("cannot listen on {}: is another server running there?", config.server.listen))?;
        let address = listener.local_addr()?;
        let router = gateway(&config, &store, &rules, sources, &platforms, &clock, &stop, &session_keys, link.as_ref(), &reloader, roles);
        let agents = roll.map(|roll| roll as Arc<dyn domain::announcement::Agents>);
        let router = Gateway { agents, ..router }.router();
        let commands = config.nats.as_ref().and_then(|nats| nats.commands.as_ref()).filter(|_| roles.gateway);
        if let (Some(link), Some(commands)) = (&link, commands) {
            let router = router.clone();
            let call: bus::Call = Arc::new(move |request| Box::pin(webhook_gateway::call(router.clone(), request)));
            tasks.push(tokio::spawn(bus::Commands::new(commands.clone(), link.clone(), call, stop.soft.clone()).run()));
        }
        let tls = config.server.tls.as_ref().map(|tls| TlsFiles {
            certificate: tls.cert_file.clone(),
            key: tls.key_file.clone(),
            every: TLS_LOOK,
        });
        let connections = Connections { peers: trusted_peers(&config.server), ..Connections::default() };
        let drain = config.server.drain.unwrap_or(if config.store.postgres { DRAIN } else { std::time::Duration::ZERO });
        let gateway_stop = GatewayStop { soft: stop.soft.clone(), hard: stop.hard.clone(), drain };
        let https = tls.is_some();
        tasks.push(tokio::spawn(async move {
            if let Err(error) = webhook_gateway::serve(listener, tls, router, connections, gateway_stop).await {
                tracing::error!(error = %format!("{error:#}"), "the gateway ended");
            }
        }));
        tracing::info!(%address, durability = %store.durability(), rules = %config.rules.digest, %roles, "serving");
        Ok(Running {
            address,
            https,
            public_url: config.server.public_url.clone(),
            links: LoginLinks::new(session_keys),
            supervisor,
            stop,
            wake,
            reloader,
            sealer,
            store,
            tasks,
        })
    }
}

/// Where lifecycle events go, if anywhere.
fn outbound(config: &Config, link: Option<&Link>, store: &Store) -> Option<Arc<dyn domain::lifecycle::Bus>> {
    let publish = config.nats.as_ref()?.publish.clone()?;
    store.publish_lifecycle();
    Some(Arc::new(Outbound::new(publish, link?.clone(), config.server.public_url.clone())))
}

/// What keeps the sources' deliveries before they are answered, if that is not the store.
fn intake(config: &Config, link: Option<&Link>, store: &Store) -> Option<Arc<bus::Intake>> {
    let ingest = config.nats.as_ref()?.ingest.clone()?;
    Some(Arc::new(bus::Intake::new(ingest, link?.clone(), store.clone())))
}

/// With a trusted proxy in front, and no TLS of our own, nobody else but this machine may connect.
fn trusted_peers(server: &crate::config::ServerConfig) -> Option<webhook_gateway::Peers> {
    if server.trusted_proxy.is_empty() || server.tls.is_some() {
        return None;
    }
    let networks = server.trusted_proxy.clone();
    Some(Arc::new(move |peer| peer.is_loopback() || networks.iter().any(|network| network.contains(peer))))
}

/// Tells Discord our slash commands. Until it listens they are missing there, and nothing else.
async fn register_commands(discord: Arc<Discord>, stop: tokio_util::sync::CancellationToken) {
    let mut pause = std::time::Duration::from_secs(5);
    while let Err(error) = discord.register_commands().await {
        tracing::warn!(%error, "Discord did not take the slash commands: trying again");
        tokio::select! { () = tokio::time::sleep(pause) => {}, () = stop.cancelled() => return }
        pause = (pause * 2).min(std::time::Duration::from_secs(600));
    }
}

/// Holds Discord's gateway socket for as long as the lease is ours.
async fn listen(discord: Arc<Discord>, ours: tokio_util::sync::CancellationToken) {
    if let Err(error) = discord.run_gateway(ours.clone()).await {
        tracing::error!(%error, "Discord's gateway will not be used until the next start");
        // Another replica would be refused as well: the lease is kept.
        ours.cancelled().await;
    }
}

async fn open_store(config: &Config, clock: &Arc<dyn Clock>) -> anyhow::Result<Store> {
    let audit_keys = keys::load(&config.keys.audit, &config.data_dir, "audit")?;
    let options = Options {
        url: config.store.url.expose_secret().to_owned(),
        clock: Arc::clone(clock),
        instance: config.server.name.clone().unwrap_or_else(host_name),
        start: StartId::new(clock.now()),
        audit_keys,
        max_waiting: MOST_WAITING,
    };
    Store::open(options).await.context("cannot open the store")
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

async fn keep_rules(store: &Store, rules: &RuleSet, now: jiff::Timestamp) -> anyhow::Result<()> {
    let mut tx = store.begin().await?;
    tx.put_rule_set(&rules.digest, &rules.texts).await?;
    tx.audit(&crate::audit::in_force("server.start", now, None, &rules.digest)).await?;
    tx.commit().await?;
    Ok(())
}

/// Every secret that was read; a short one cannot be found safely in other text, so it is refused.
fn redactor(config: &Config) -> anyhow::Result<Redactor> {
    Redactor::new(config.secrets.iter().map(ExposeSecret::expose_secret)).map_err(|error| anyhow::anyhow!("{error}"))
}

/// Starts the children that are targets of kind `process`. One that does not start is a finding for its alerts, not for our start.
pub(crate) async fn start_children(supervisor: &Supervisor, rules: &RuleSet) {
    for target in rules.targets.values().filter(|target| target.kind == "process" && target.text("agent").is_none()) {
        if let Err(error) = supervisor.ensure(target).await {
            tracing::error!(target = %target.name, %error, "a supervised child did not start");
        }
    }
}

fn platforms(config: &Config, store: &Store, rules: &Arc<ArcSwap<RuleSet>>, clock: &Arc<dyn Clock>) -> anyhow::Result<Platforms> {
    let inbox: Arc<dyn Inbox> = Arc::new(store.clone());
    let lookup: Arc<dyn Lookup> = Arc::new(Answers { store: store.clone(), rules: Arc::clone(rules) });
    let mut platforms = Platforms::default();
    if let Some(slack) = &config.slack {
        let slack = Slack::new(slack.clone().into(), Arc::clone(&inbox), Arc::clone(&lookup), Arc::clone(clock))?;
        platforms.chats.push(Arc::clone(&slack) as Arc<dyn Chat>);
        platforms.routes.push(slack as Arc<dyn HttpInbound>);
    }
    if let Some(discord) = &config.discord {
        let discord = Discord::new(discord.clone().into(), inbox, lookup, Arc::clone(clock))?;
        platforms.chats.push(Arc::clone(&discord) as Arc<dyn Chat>);
        platforms.routes.push(Arc::clone(&discord) as Arc<dyn HttpInbound>);
        platforms.discord = Some(discord);
    }
    if platforms.chats.is_empty() {
        tracing::info!("no chat platform is configured: people use the console");
    }
    Ok(platforms)
}

#[expect(clippy::too_many_arguments, reason = "the gateway is where everything meets; a struct for one call would only repeat it")]
fn gateway(
    config: &Config,
    store: &Store,
    rules: &Arc<ArcSwap<RuleSet>>,
    sources: Arc<ArcSwap<SourceTable>>,
    platforms: &Platforms,
    clock: &Arc<dyn Clock>,
    stop: &Stop,
    session_keys: &[secrecy::SecretSlice<u8>],
    link: Option<&Link>,
    reloader: &Arc<Reloader>,
    roles: Roles,
) -> Gateway {
    let recorder = crate::recorder::install();
    let reloader = Arc::clone(reloader);
    let kept = intake(config, link, store);
    let intake = match &kept {
        Some(kept) => Arc::clone(kept) as Arc<dyn Inbox>,
        None => Arc::new(store.clone()),
    };
    Gateway {
        settings: GatewaySettings {
            sources,
            limits: Limits::default(),
            metrics_token: config.telemetry.metrics_token.as_ref().map(webhook_gateway::HashedSecret::bearer),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            https: config.server.https(),
        },
        store: store.clone(),
        inbox: Arc::new(store.clone()),
        intake,
        rules: Arc::clone(rules),
        chat: platforms.routes.clone(),
        clock: Arc::clone(clock),
        metrics: Arc::new(move || recorder.render()),
        health: Arc::new(Probe::new(store.clone(), platforms.chats.clone(), link.cloned(), kept.filter(|_| roles.gateway))),
        console: ConsoleSettings { link_keys: session_keys.to_vec() },
        reload: Arc::new(move || {
            let reloader = Arc::clone(&reloader);
            Box::pin(async move { reloader.reload().await })
        }),
        stopping: stop.soft.clone(),
        ops_only: !roles.gateway,
        agents: None,
    }
}

fn signed(duration: domain::duration::Dur) -> jiff::SignedDuration {
    jiff::SignedDuration::try_from(duration.as_std()).unwrap_or(jiff::SignedDuration::MAX)
}
