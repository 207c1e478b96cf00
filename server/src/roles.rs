//! Which parts of the work this process does: `serve --only gateway,worker,bot`.

use crate::config::Config;

/// One part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Role {
    /// Takes what comes in: sources, API, console, chat over HTTP, NATS.
    Gateway,
    /// Decides and carries out.
    Worker,
    /// Holds Discord's gateway socket.
    Bot,
}

/// The parts that this process has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Roles {
    pub(crate) gateway: bool,
    pub(crate) worker: bool,
    pub(crate) bot: bool,
}

impl Roles {
    /// Everything: what a server does if nothing else is said.
    pub(crate) const ALL: Self = Self { gateway: true, worker: true, bot: true };

    /// These alone; all if none is named.
    ///
    /// # Errors
    /// If they leave something undone that nobody else can do, or have nothing to do.
    pub(crate) fn only(roles: &[Role], config: &Config) -> anyhow::Result<Self> {
        if roles.is_empty() {
            return Ok(Self::ALL);
        }
        let has = |role| roles.contains(&role);
        let this = Self { gateway: has(Role::Gateway), worker: has(Role::Worker), bot: has(Role::Bot) };
        if this != Self::ALL && !config.store.postgres {
            anyhow::bail!(
                "--only needs PostgreSQL: SQLite serves one process, which has to do everything; leave it out, or set `store.url`"
            );
        }
        let socket = config.discord.as_ref().is_some_and(|discord| discord.gateway);
        if !this.gateway && !this.worker && !socket {
            anyhow::bail!("--only bot has nothing to do: it holds Discord's gateway socket; set `discord.gateway: true`, or leave it out");
        }
        Ok(this)
    }
}

impl std::fmt::Display for Roles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let named = [(self.gateway, "gateway"), (self.worker, "worker"), (self.bot, "bot")];
        let names: Vec<&str> = named.into_iter().filter_map(|(has, name)| has.then_some(name)).collect();
        f.write_str(&names.join(","))
    }
}
