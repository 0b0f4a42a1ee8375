//! From containers to processes of this machine: each port that a service listens on
//! becomes a loopback address, each volume a folder, each name of a service the address,
//! each network this machine.
//! What a command says beyond that is left as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::compose::{self, Service, Services};

const DYNAMODB_IMAGE: &str = "amazon/dynamodb-local:";
/// Its program has no flag for it in the file: it is its default.
const DYNAMODB_PORT: u16 = 8_000;
/// What listens on every address of its container.
const ANY: &str = "0.0.0.0";

/// Everything, in the order in which it is started.
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    /// The folders that stand for volumes.
    pub(crate) volumes: BTreeSet<String>,
}

/// One service.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) name: String,
    pub(crate) kind: Kind,
}

#[derive(Debug)]
pub(crate) enum Kind {
    DynamoDb {
        port: u16,
        data: PathBuf,
    },
    Once(Line),
    Server {
        run: Line,
        health: Line,
        listens: Vec<(String, SocketAddr)>,
    },
}

/// What is run.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) program: String,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: BTreeMap<String, String>,
}

impl Plan {
    /// Plans a profile of the file. Data stand below `folder`; published ports are as
    /// published, or free ones.
    pub(crate) fn of(root: &Path, profile: &str, folder: &Path, published: bool) -> Result<Self> {
        let services = compose::read(root, profile)?;
        let places = Places::of(&services, published)?;
        let (mut steps, mut volumes) = (Vec::new(), BTreeSet::new());
        for name in compose::in_order(&services)? {
            let local = Local {
                name: &name,
                service: &services[&name],
                places: &places,
                folder,
            };
            let kind = local.kind(&services);
            let kind = kind.with_context(|| format!("service {name} cannot be run here"))?;
            let mounts = services[&name].mounts()?;
            volumes.extend(mounts.into_iter().map(|(_, volume)| volume.to_owned()));
            steps.push(Step { name, kind });
        }
        Ok(Self { steps, volumes })
    }

    /// Lets the page sign in whoever gives a name, with the key in a folder: what is only
    /// ever done where everything is on loopback, which containers are not.
    pub(crate) fn sign_in_by_name(&mut self, key: &Path) {
        for step in &mut self.steps {
            if let Kind::Server { run, .. } = &mut step.kind
                && run.program == "duologue-gateway"
            {
                run.arguments.push(format!("--dev-key={}", key.display()));
            }
        }
    }

    /// Where a service listens, by a part of the flag's name.
    pub(crate) fn listens(&self, service: &str, what: &str) -> Result<SocketAddr> {
        let listens = self.steps.iter().find_map(|step| match &step.kind {
            Kind::Server { listens, .. } if step.name == service => Some(listens),
            Kind::Server { .. } | Kind::DynamoDb { .. } | Kind::Once(_) => None,
        });
        let listens = listens.with_context(|| format!("there is no server {service}"))?;
        let place = listens.iter().find(|(name, _)| name == what);
        Ok(place.with_context(|| format!("{service} has no {what}"))?.1)
    }
}

/// Where every port of every service is.
struct Places(BTreeMap<(String, u16), SocketAddr>);

impl Places {
    fn of(services: &Services, published: bool) -> Result<Self> {
        let mut places = BTreeMap::new();
        if published {
            for (name, service) in services {
                for (port, place) in service.published()? {
                    places.insert((name.clone(), port), place.parse()?);
                }
            }
        }
        // Held until all are known, so that none is given twice.
        let mut held = Vec::new();
        for (name, service) in services {
            for port in ports(service)? {
                let key = (name.clone(), port);
                while !places.contains_key(&key) {
                    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
                    let free = free.context("no port is free")?;
                    let place = free.local_addr()?;
                    if !places.values().any(|taken| *taken == place) {
                        places.insert(key.clone(), place);
                    }
                    held.push(free);
                }
            }
        }
        Ok(Self(places))
    }

    fn get(&self, service: &str, port: u16) -> Result<SocketAddr> {
        let place = self.0.get(&(service.to_owned(), port));
        place
            .copied()
            .with_context(|| format!("{service} does not listen on {port}"))
    }

    fn is_service(&self, name: &str) -> bool {
        self.0.keys().any(|(service, _)| service == name)
    }
}

/// The ports of a container.
fn ports(service: &Service) -> Result<Vec<u16>> {
    if service.image.starts_with(DYNAMODB_IMAGE) {
        return Ok(vec![DYNAMODB_PORT]);
    }
    let listens = service.command.iter().filter_map(|word| listen(word));
    listens
        .map(|(_, port)| port.parse().context("a port is no number"))
        .collect()
}

/// The name and the port of a flag such as `--grpc-listen=0.0.0.0:50051`.
fn listen(word: &str) -> Option<(&str, &str)> {
    let (flag, value) = word.strip_prefix("--")?.split_once('=')?;
    let port = value.strip_prefix(ANY)?.strip_prefix(':')?;
    Some((flag.strip_suffix("-listen")?, port))
}

/// A service, where it is to run.
struct Local<'a> {
    name: &'a str,
    service: &'a Service,
    places: &'a Places,
    folder: &'a Path,
}

impl Local<'_> {
    fn kind(&self, services: &Services) -> Result<Kind> {
        if self.service.image.starts_with(DYNAMODB_IMAGE) {
            let mounts = self.service.mounts()?;
            let (_, volume) = mounts.first().context("it has no volume")?;
            return Ok(Kind::DynamoDb {
                port: self.places.get(self.name, DYNAMODB_PORT)?.port(),
                data: self.folder.join(volume),
            });
        }
        let run = self.line(&self.service.command)?;
        if compose::ends(self.name, services) {
            return Ok(Kind::Once(run));
        }
        let health = self.service.healthcheck.as_ref();
        let health = health.context("it has no health check")?;
        let words = self.service.command.iter();
        let listens = words
            .filter_map(|word| listen(word))
            .map(|(what, port)| Ok((what.to_owned(), self.places.get(self.name, port.parse()?)?)));
        Ok(Kind::Server {
            run,
            health: self.line(health.command()?)?,
            listens: listens.collect::<Result<_>>()?,
        })
    }

    fn line(&self, command: &[String]) -> Result<Line> {
        let (program, arguments) = command.split_first().context("it has no command")?;
        let arguments = arguments.iter().map(|word| self.word(word));
        let environment = self.service.environment.iter();
        let environment = environment.map(|(name, value)| {
            let value = compose::interpolate(value)?;
            Ok((name.clone(), self.value(&value)?))
        });
        Ok(Line {
            program: program.clone(),
            arguments: arguments.collect::<Result<_>>()?,
            environment: environment.collect::<Result<_>>()?,
        })
    }

    /// A word of a command: a flag with its value, or a value.
    fn word(&self, word: &str) -> Result<String> {
        match word.split_once('=') {
            Some((flag, value)) if flag.starts_with("--") => {
                Ok(format!("{flag}={}", self.value(value)?))
            }
            _ => self.value(word),
        }
    }

    /// One value, or several with commas between.
    fn value(&self, value: &str) -> Result<String> {
        let parts = value.split(',').map(|part| self.part(part));
        Ok(parts.collect::<Result<Vec<_>>>()?.join(","))
    }

    fn part(&self, piece: &str) -> Result<String> {
        for (place, volume) in self.service.mounts()? {
            if let Some(rest) = piece.strip_prefix(place)
                && (rest.is_empty() || rest.starts_with('/'))
            {
                let folder = self.folder.join(volume);
                let folder = folder.to_str().context("a folder's name is not UTF-8")?;
                ensure!(!folder.contains(','), "a folder has a comma in its name");
                return Ok(format!("{folder}{rest}"));
            }
        }
        let (scheme, rest) = match piece.split_once("://") {
            Some((scheme, rest)) => (format!("{scheme}://"), rest),
            None => (String::new(), piece),
        };
        if is_network(rest) {
            return Ok(Ipv4Addr::LOCALHOST.to_string());
        }
        let Some((host, port)) = rest.split_once(':') else {
            return Ok(piece.to_owned());
        };
        if let Some(place) = self.seen_by_browsers(host, port)? {
            return Ok(format!("{scheme}{host}:{}", place.port()));
        }
        let host = match host {
            ANY | "127.0.0.1" => self.name,
            name if self.places.is_service(name) => name,
            _ => return Ok(piece.to_owned()),
        };
        Ok(format!("{scheme}{}", self.places.get(host, port.parse()?)?))
    }
}

impl Local<'_> {
    /// Where it is, if this is where its port is published.
    fn seen_by_browsers(&self, host: &str, port: &str) -> Result<Option<SocketAddr>> {
        let port = format!(":{port}");
        let published = self.service.published()?;
        let own = published.iter().find(|(_, outer)| outer.ends_with(&port));
        match own.filter(|_| matches!(host, "127.0.0.1" | "localhost")) {
            Some((inner, _)) => Ok(Some(self.places.get(self.name, *inner)?)),
            None => Ok(None),
        }
    }
}

/// Whether this is a network of containers, such as 172.31.99.0/24.
fn is_network(text: &str) -> bool {
    let parts = text.split_once('/');
    parts.is_some_and(|(ip, bits)| ip.parse::<Ipv4Addr>().is_ok() && bits.parse::<u8>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        let folder = Path::new("/somewhere");
        Plan::of(&crate::workspace_root(), "split", folder, true).unwrap()
    }

    fn servers(plan: &Plan) -> Vec<(&str, &Line, &Line)> {
        let servers = plan.steps.iter().filter_map(|step| match &step.kind {
            Kind::Server { run, health, .. } => Some((step.name.as_str(), run, health)),
            Kind::DynamoDb { .. } | Kind::Once(_) => None,
        });
        servers.collect()
    }

    #[test]
    fn there_are_two_of_each_service() {
        let plan = plan();
        let servers = servers(&plan);
        for program in [
            "duologue-chat",
            "duologue-gateway",
            "duologue-history",
            "duologue-presence",
        ] {
            let of_it = servers.iter().filter(|(_, run, _)| run.program == program);
            assert_eq!(of_it.count(), 2, "{program}");
        }
        assert_eq!(servers.len(), 8);
    }

    #[test]
    fn published_ports_are_kept_and_all_others_are_free_ones() {
        let plan = plan();
        let grpc = |name| plan.listens(name, "grpc").unwrap();
        assert_eq!(grpc("chat-1"), ([127, 0, 0, 1], 50_051).into());
        assert_eq!(grpc("chat-2"), ([127, 0, 0, 1], 50_052).into());
        assert_ne!(
            plan.listens("history-1", "internal").unwrap(),
            plan.listens("history-2", "internal").unwrap()
        );
    }

    #[test]
    fn a_chat_node_is_told_the_addresses_of_the_others_and_its_own() {
        let plan = plan();
        let places = |what: &str| {
            let [first, second] = [1, 2].map(|number| {
                let place = plan.listens(&format!("{what}-{number}"), "internal");
                format!("http://{}", place.unwrap())
            });
            format!("--{what}={first},{second}")
        };
        for (name, run, health) in servers(&plan) {
            if !name.starts_with("chat") {
                continue;
            }
            assert!(run.arguments.contains(&places("history")), "{run:?}");
            assert!(run.arguments.contains(&places("presence")), "{run:?}");
            let own = plan.listens(name, "internal").unwrap().to_string();
            assert_eq!(run.environment["DUOLOGUE_INTERNAL_ADVERTISE"], own);
            assert_eq!(run.environment["DUOLOGUE_NODE"], name);
            let admin = plan.listens(name, "admin").unwrap();
            assert_eq!(health.arguments.last(), Some(&format!("http://{admin}")));
        }
    }

    #[test]
    fn a_gateway_is_told_where_chat_is_and_where_browsers_find_it() {
        let mut plan = Plan::of(&crate::workspace_root(), "split", Path::new("/x"), false).unwrap();
        plan.sign_in_by_name(Path::new("/x/keys"));
        let grpc = ["chat-1", "chat-2"].map(|name| plan.listens(name, "grpc").unwrap());
        let chat = format!("--chat=http://{},http://{}", grpc[0], grpc[1]);
        for (name, run, _) in servers(&plan) {
            let trusts = run
                .arguments
                .contains(&"--trusted-proxy=127.0.0.1".to_owned());
            assert_eq!(trusts, name.starts_with("chat"), "{run:?}");
            if !name.starts_with("gateway") {
                continue;
            }
            assert!(run.arguments.contains(&chat), "{run:?}");
            assert_eq!(run.arguments.last().unwrap(), "--dev-key=/x/keys");
            let web = plan.listens(name, "web").unwrap();
            let origins = format!("http://{web},http://localhost:{}", web.port());
            assert_eq!(run.environment["DUOLOGUE_ALLOWED_ORIGIN"], origins);
        }
    }

    #[test]
    fn nothing_of_a_container_is_left() {
        for step in plan().steps {
            let lines = match step.kind {
                Kind::DynamoDb { data, .. } => {
                    assert_eq!(data, Path::new("/somewhere/dynamodb"));
                    vec![]
                }
                Kind::Once(run) => vec![run],
                Kind::Server { run, health, .. } => vec![run, health],
            };
            for line in lines {
                let text = format!("{line:?}");
                for left in [
                    ANY,
                    "\"/shared",
                    "=/shared",
                    "\"/keys",
                    "dynamodb:8000",
                    "/24",
                ] {
                    assert!(!text.contains(left), "{}: {left} in {text}", step.name);
                }
            }
        }
    }
}
