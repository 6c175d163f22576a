//! A changed config: validated whole, then put in place in one step, or not at all.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use access::listener::Tls;
use access::{Cores, Door};
use arc_swap::ArcSwap;
use infrastructure::config::Watch;
use infrastructure::telemetry::Metrics;
use kernel::fetch::Fetch;
use kernel::sight::Gauges;
use scheduling::Pool;
use tenancy::Register;
use tokio::signal::unix::{SignalKind, signal};

use crate::assemble::{Stages, State, assemble};
use crate::config::{Config, Listen, Loaded};
use crate::{enrolment, environment};

/// How often the file is looked at, for file systems that tell nothing.
const POLL: Duration = Duration::from_secs(2);

/// What runs, and what is needed to replace it.
pub(crate) struct Running {
    pub(crate) door: Arc<Door>,
    pub(crate) cores: Arc<Cores>,
    pub(crate) stages: ArcSwap<Stages>,
    pub(crate) workers: Arc<Pool>,
    pub(crate) state: State,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) register: Arc<Register>,
    pub(crate) data_dir: PathBuf,
    /// Asks issuers and authorization servers.
    pub(crate) fetch: Arc<dyn Fetch>,
    pub(crate) listen: Listen,
}

impl Running {
    /// Every stage with something to show.
    pub(crate) fn gauges(&self) -> Vec<Arc<dyn Gauges>> {
        vec![
            Arc::clone(&self.door) as Arc<dyn Gauges>,
            Arc::clone(&self.cores) as _,
            Arc::clone(&self.workers) as _,
            Arc::clone(&self.register) as _,
            Arc::clone(&self.state.limits) as _,
            Arc::clone(&self.state.credentials) as _,
            self.stages.load_full() as _,
            Arc::new(self.state.money.clone()) as _,
        ]
    }

    /// Without a config file there is nothing to reload: SIGHUP is noticed, and no longer ends the process.
    pub(crate) async fn ignore_hangups() -> std::io::Result<()> {
        let mut hangup = signal(SignalKind::hangup())?;
        while hangup.recv().await.is_some() {
            tracing::info!("asked to reload: there is no config file");
        }
        Ok(())
    }

    /// Reloads the file whenever it changes or SIGHUP comes.
    pub(crate) async fn follow(&self, path: PathBuf, mut current: Loaded) -> std::io::Result<()> {
        let mut hangup = signal(SignalKind::hangup())?;
        let (_watch, mut sightings) = Watch::start(&path, POLL)?;
        let (mut generation, mut asked) = (1, false);
        // The first round is for what changed between reading the file and watching it.
        loop {
            match self.reload(&path, generation + 1, &current) {
                Ok(Some(loaded)) => {
                    (current, generation) = (loaded, generation + 1);
                    tracing::info!(config = %self.door.machine().version, "config reloaded");
                }
                Ok(None) if asked => tracing::info!("asked to reload: the config is the same"),
                Ok(None) => {}
                Err(fault) => {
                    self.metrics.reload_failed();
                    tracing::error!("the changed config is not usable and changes nothing:\n{fault:#}");
                }
            }
            asked = tokio::select! {
                _ = hangup.recv() => true,
                changed = sightings.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    let trouble = sightings.borrow_and_update().trouble.clone();
                    if let Some(trouble) = trouble {
                        tracing::warn!("cannot watch the config: {trouble}");
                    }
                    false
                }
            };
        }
    }

    /// Has the keys of every issuer that a tenant trusts in good time.
    pub(crate) async fn keep_keys(&self) {
        let keys = Arc::clone(&self.state.credentials);
        let (door, register) = (&self.door, &self.register);
        let issuers = || register.directory().identities().issuers().map(Into::into).collect();
        keys.look_after(Arc::clone(&self.fetch), || door.machine().credentials.issuers().clone(), issuers).await;
    }

    /// Puts the file's config in place; `None` when it is the one in place already.
    fn reload(&self, path: &Path, generation: u64, current: &Loaded) -> anyhow::Result<Option<Loaded>> {
        let load = || Config::load(path, &self.listen, &self.data_dir, &current.tokenizers);
        // A tokenizer can take seconds to read.
        let loaded = tokio::task::block_in_place(load).map_err(|faults| anyhow::anyhow!("{faults}"))?;
        // A certificate may have changed in a file the config only names.
        let tls = loaded.config.listen.tls.as_ref().map(Tls::load).transpose()?;
        enrolment::season(&self.register, &loaded.config, &self.data_dir)?;
        if loaded.config.listen.tls.is_some() == current.config.listen.tls.is_some() {
            self.cores.renew(tls);
        }
        if loaded.print == current.print && loaded.tokenizers.same(&current.tokenizers) {
            return Ok(None);
        }
        for (key, changed) in fixed(&loaded.config, &current.config) {
            if changed {
                tracing::warn!("`{key}` has changed: that takes effect at the next start");
            }
        }
        let admin_token = environment::admin_token(loaded.config.admin.token.as_ref(), &self.data_dir);
        let (machine, stages) = assemble(&loaded, generation, &self.state, &self.register, admin_token, &self.fetch);
        self.register.declare(loaded.config.declared());
        self.stages.load().fleet.unwatch();
        stages.fleet.watch();
        for core in self.cores.handles() {
            let fleet = Arc::clone(&stages.fleet);
            core.spawn(async move { fleet.warm().await });
        }
        let version = Arc::clone(&machine.version);
        self.stages.store(Arc::new(stages));
        self.door.swap(machine);
        // Last, so that whoever sees it counted finds it in force.
        self.metrics.reloaded(&version);
        Ok(Some(loaded))
    }
}

/// Keys that are only read at the start.
fn fixed(new: &Config, old: &Config) -> [(&'static str, bool); 8] {
    [
        ("listen.http", new.address() != old.address()),
        ("listen.admin", new.listen.admin != old.listen.admin),
        ("listen.tls", new.listen.tls.is_some() != old.listen.tls.is_some()),
        ("listen.threads", new.listen.threads != old.listen.threads),
        ("limits.connections_max", new.limits.connections_max != old.limits.connections_max),
        ("scheduling.workers", new.scheduling.workers != old.scheduling.workers),
        ("storage", new.storage != old.storage),
        ("telemetry", new.telemetry != old.telemetry),
    ]
}
