//! What docker-compose.yml says, as far as it matters without containers. What stands
//! there and is not known here is passed over: networks, limits, images.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

const FILE: &str = "docker-compose.yml";

/// Services by name.
pub(super) type Services = BTreeMap<String, Service>;

#[derive(Deserialize)]
struct File {
    services: Services,
}

/// One service.
#[derive(Debug, Deserialize)]
pub(super) struct Service {
    pub(super) image: String,
    #[serde(default)]
    profiles: Vec<String>,
    #[serde(default)]
    pub(super) command: Vec<String>,
    #[serde(default)]
    pub(super) environment: BTreeMap<String, String>,
    #[serde(default)]
    ports: Vec<String>,
    #[serde(default)]
    volumes: Vec<String>,
    #[serde(default)]
    depends_on: BTreeMap<String, Dependency>,
    pub(super) healthcheck: Option<Healthcheck>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    condition: Condition,
}

#[derive(Debug, Deserialize, PartialEq, Eq, Clone, Copy)]
enum Condition {
    #[serde(rename = "service_started")]
    Started,
    #[serde(rename = "service_healthy")]
    Healthy,
    #[serde(rename = "service_completed_successfully")]
    Completed,
}

/// How it is asked whether it may get calls.
#[derive(Debug, Deserialize)]
pub(super) struct Healthcheck {
    test: Vec<String>,
}

impl Service {
    /// Published ports: that of the container, and where it is on this machine.
    pub(super) fn published(&self) -> Result<Vec<(u16, String)>> {
        let ports = self.ports.iter().map(|port| {
            let (outer, inner) = port.rsplit_once(':').context("a port has no address")?;
            Ok((inner.parse()?, outer.to_owned()))
        });
        ports.collect()
    }

    /// Volumes that are mounted: where, and which.
    pub(super) fn mounts(&self) -> Result<Vec<(&str, &str)>> {
        let mounts = self.volumes.iter().map(|mount| {
            let mut parts = mount.split(':');
            let volume = parts.next().context("a mount has no volume")?;
            Ok((parts.next().context("a mount has no place")?, volume))
        });
        mounts.collect()
    }
}

impl Healthcheck {
    /// The command, without a shell.
    pub(super) fn command(&self) -> Result<&[String]> {
        match self.test.split_first() {
            Some((kind, command)) if kind == "CMD" => Ok(command),
            _ => bail!("a health check is not a plain command"),
        }
    }
}

/// Whether others wait for the end of a service.
pub(super) fn ends(name: &str, all: &Services) -> bool {
    let waits = |other: &Service| {
        let waits = other.depends_on.get(name);
        waits.is_some_and(|it| it.condition == Condition::Completed)
    };
    all.values().any(waits)
}

/// Reads the services of one profile.
pub(super) fn read(root: &Path, profile: &str) -> Result<Services> {
    let text = std::fs::read_to_string(root.join(FILE)).with_context(|| format!("no {FILE}"))?;
    let file: File =
        serde_saphyr::from_str(&text).with_context(|| format!("cannot understand {FILE}"))?;
    let mut services = file.services;
    services.retain(|_, service| service.profiles.iter().any(|it| it == profile));
    ensure!(!services.is_empty(), "{FILE} has no profile {profile}");
    Ok(services)
}

/// The names in an order in which each stands after those that it waits for.
pub(super) fn in_order(services: &Services) -> Result<Vec<String>> {
    let mut order: Vec<String> = Vec::new();
    while order.len() < services.len() {
        let before = order.len();
        for (name, service) in services {
            let waits = service.depends_on.keys().any(|it| !order.contains(it));
            if !waits && !order.contains(name) {
                order.push(name.clone());
            }
        }
        ensure!(
            order.len() > before,
            "services of {FILE} wait for each other"
        );
    }
    Ok(order)
}

/// A value with `${NAME:-default}` in its place, as Compose has it.
pub(super) fn interpolate(value: &str) -> Result<String> {
    let Some((before, rest)) = value.split_once("${") else {
        return Ok(value.to_owned());
    };
    let parts = rest.split_once('}');
    let (variable, after) = parts.with_context(|| format!("{value} is not closed"))?;
    let parts = variable.split_once(":-");
    let (name, default) = parts.with_context(|| format!("{value} has no default"))?;
    let given = std::env::var_os(name).filter(|given| !given.is_empty());
    let given = match given {
        Some(given) => given
            .into_string()
            .ok()
            .with_context(|| format!("{name} is not UTF-8"))?,
        None => default.to_owned(),
    };
    Ok(format!("{before}{given}{}", interpolate(after)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_that_is_not_set_has_its_default() {
        let value = "a ${DUOLOGUE_NEVER_SET:-b} c ${DUOLOGUE_NEVER_SET:-} d";
        assert_eq!(interpolate(value).unwrap(), "a b c  d");
        assert!(interpolate("${DUOLOGUE_NEVER_SET}").is_err());
    }

    #[test]
    fn those_that_are_waited_for_stand_first() {
        let services = read(&crate::workspace_root(), "split").unwrap();
        let order = in_order(&services).unwrap();
        let place = |name: &str| order.iter().position(|it| it == name).unwrap();
        assert!(place("dynamodb") < place("tables"));
        assert!(place("tables") < place("history-1"));
        assert!(place("presence-2") < place("chat-1"));
        assert!(ends("tables", &services));
        assert!(!ends("dynamodb", &services));
    }
}
