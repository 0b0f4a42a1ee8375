//! How a device's client is started, and started again, from what it has saved.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use duologue_client::{Client, FilePersistence, PersistenceError, TokenError};
use tokio::time::{Instant, sleep};
use tonic::Status;

use super::app::App;
use super::behaviour::Behaviour;
use super::client::{Actor, TURN};
use super::link::channel_of;
use super::node::{Node, Start};
use super::world::{LONG, SHORT};
use crate::event::{Connect, Door, Event};

/// A client that was dropped lets go of its state within this time.
const RELEASE_LIMIT: Duration = Duration::from_secs(5);

impl Actor {
    /// Starts a client from what the last one has saved.
    pub(super) async fn start(&mut self) -> Result<App> {
        self.gate = self.world.gate();
        self.broken_until = None;
        self.lost = false;
        self.connected = false;
        self.session = self.world.recorder.number();
        self.world.note(Event::Connect(Connect {
            session: self.session,
            user: self.user.clone(),
            device: self.device.to_string(),
            number: 0,
            door: Door::Client,
            way: self.way.way(),
            token: String::new(),
            positions: BTreeMap::new(),
            held: self.held.clone(),
        }));
        let lifetime = if !self.steady && self.rng.percent(40) {
            SHORT
        } else {
            LONG
        };
        let (world, user) = (self.world.clone(), self.user.clone());
        let token = move || {
            // In the end nobody comes anew all the time.
            let lifetime = if world.is_wild() { lifetime } else { LONG };
            world.token(&user, lifetime)
        };
        match self.program.clone() {
            None => self.start_rust(token).await,
            Some(program) => self.start_node(&program, token).await,
        }
    }

    async fn start_rust(
        &self,
        token: impl Fn() -> Result<String, Status> + Send + Sync + 'static,
    ) -> Result<App> {
        let (addresses, gate) = (self.way.addresses.clone(), self.gate.clone());
        let builder = Client::builder(format!("http://{}", addresses.first()))
            .token_source(move |_refused| std::future::ready(token().map_err(TokenError::from)))
            .channel(move |endpoint| channel_of(&endpoint, &addresses, &gate))
            .persistence(self.persistence().await?)
            .device(self.device.clone())
            .mark_delivered(false);
        let (client, events) = builder.start().await?;
        Ok(App::Rust(client, events))
    }

    async fn start_node(
        &self,
        program: &[String],
        token: impl Fn() -> Result<String, Status> + Send + 'static,
    ) -> Result<App> {
        let world = self.world.clone();
        let start = Start {
            program,
            user: &self.user,
            transport: self.way.way().name(),
            state: &self.folder.path().join("state.json"),
            addresses: self.way.addresses.clone(),
            gate: self.gate.clone(),
        };
        let node = Node::start(start, move |refused| {
            if refused {
                world.did(Behaviour::TokenExpired);
            }
            token().ok()
        });
        Ok(App::Node(node.await?))
    }

    /// The state on disk; the last client may be letting go of it.
    async fn persistence(&self) -> Result<FilePersistence> {
        let limit = Instant::now() + RELEASE_LIMIT;
        loop {
            match FilePersistence::open(self.folder.path().join("state.json")) {
                Err(PersistenceError::Locked { .. }) if Instant::now() < limit => sleep(TURN).await,
                opened => return Ok(opened?),
            }
        }
    }
}
