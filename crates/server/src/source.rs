//! Where the config comes from when `serve` starts: a file, backends by URL, keys in the environment, or the simulator.

use anyhow::{Context, bail};
use kernel::settings::{Findings, Secret};
use models::ModelSettings;
use models::detect::{self, Detected};
use tenancy::tokens::Tokenizers;

use crate::cli::ServeArgs;
use crate::config::{Config, Listen, Loaded};
use crate::environment;

/// A config and how it came about, for the banner.
pub(crate) struct Source {
    pub(crate) loaded: Loaded,
    /// One line: what stands behind.
    pub(crate) about: String,
}

/// A cloud that is used when its key is in the environment.
struct Cloud {
    name: &'static str,
    variable: &'static str,
    url: &'static str,
}

const CLOUDS: &[Cloud] = &[
    Cloud { name: "OpenAI", variable: "OPENAI_API_KEY", url: "https://api.openai.com/v1" },
    Cloud { name: "Anthropic", variable: "ANTHROPIC_API_KEY", url: "https://api.anthropic.com/v1" },
    Cloud {
        name: "Gemini",
        variable: "GEMINI_API_KEY",
        url: "https://generativelanguage.googleapis.com/v1beta/openai",
    },
    Cloud { name: "DeepSeek", variable: "DEEPSEEK_API_KEY", url: "https://api.deepseek.com/v1" },
];

impl ServeArgs {
    /// The addresses given.
    pub(crate) fn listen(&self) -> Listen {
        Listen { http: self.http, admin: self.admin }
    }
}

/// Finds the config to start with.
pub(crate) async fn find(args: &ServeArgs) -> anyhow::Result<Source> {
    let mut source = look(args).await?;
    source.loaded.config.listen_at(&args.listen());
    let mut findings = Findings::default();
    source.loaded.config.validate(&args.data_dir, &mut findings);
    if let Some(finding) = findings.0.first() {
        bail!("{}: {}", finding.path, finding.message);
    }
    Ok(source)
}

async fn look(args: &ServeArgs) -> anyhow::Result<Source> {
    if let Some(path) = &args.config {
        let loaded = Config::load(path, &args.listen(), &args.data_dir, &Tokenizers::default())
            .map_err(|faults| anyhow::anyhow!("the config is not usable:\n{faults}"))?;
        return Ok(Source { loaded, about: format!("config {}", path.display()) });
    }
    if !args.backend.is_empty() {
        return backends(&args.backend).await;
    }
    let clouds: Vec<_> = CLOUDS
        .iter()
        .filter_map(|cloud| Some((cloud, environment::variable(cloud.variable).filter(|key| !key.is_empty())?)))
        .collect();
    if !clouds.is_empty() {
        return self::clouds(clouds).await;
    }
    let sim = ModelSettings::short("sim", None, "sim");
    let about = "the built-in simulator: made-up words, no model. For a real one: --backend URL, or -c sluice.yaml";
    Ok(Source { loaded: made(vec![sim]), about: about.into() })
}

async fn backends(urls: &[String]) -> anyhow::Result<Source> {
    let (mut models, mut kinds) = (Vec::<ModelSettings>::new(), Vec::new());
    for url in urls {
        let found =
            detect::detect(url, None).await.map_err(anyhow::Error::msg).with_context(|| format!("--backend {url}"))?;
        kinds.push(format!("{} at {url}", found.kind));
        found.models.into_iter().for_each(|model| join(&mut models, model));
    }
    Ok(Source { loaded: made(models), about: kinds.join(", ") })
}

async fn clouds(clouds: Vec<(&Cloud, String)>) -> anyhow::Result<Source> {
    let (mut models, mut used, mut failed) = (Vec::<ModelSettings>::new(), Vec::new(), Vec::new());
    for (cloud, key) in clouds {
        let key = Secret::new(key);
        match detect::detect(cloud.url, Some(&key)).await {
            Ok(Detected { models: found, .. }) => {
                used.push(format!("{} ({})", cloud.name, cloud.variable));
                for mut model in found {
                    model.api_key = Some(key.clone());
                    model.health.path = None;
                    // The first cloud that has a name keeps it: keys must not be mixed.
                    if models.iter().all(|known| known.model_name != model.model_name) {
                        models.push(model);
                    }
                }
            }
            Err(fault) => failed.push(format!("{} is set, but {fault}", cloud.variable)),
        }
    }
    if models.is_empty() {
        bail!(
            "{}.\nName a backend with --backend URL, write a config, or unset the variable to try the simulator",
            failed.join("\n")
        );
    }
    failed.iter().for_each(|fault| tracing::warn!("{fault}"));
    Ok(Source { loaded: made(models), about: used.join(", ") })
}

/// Backends that serve the same model share its calls.
fn join(models: &mut Vec<ModelSettings>, model: ModelSettings) {
    let Some(known) = models.iter_mut().find(|known| known.model_name == model.model_name) else {
        models.push(model);
        return;
    };
    let mut versions = known.versions();
    if let (Some(version), Some(other)) = (versions.first_mut(), model.versions().into_iter().next()) {
        version.instances.extend(other.instances);
    }
    (known.versions, known.endpoint) = (versions, None);
}

fn made(models: Vec<ModelSettings>) -> Loaded {
    let config = Config { models, ..Config::default() };
    Loaded { config, print: "builtin".into(), tokenizers: Tokenizers::default() }
}
