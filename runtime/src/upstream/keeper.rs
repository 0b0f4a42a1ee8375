//! Keeps one connection to one replica, and says whether it can be called: it is
//! connected to, it answers, it lets us in, and it says that it serves.

use std::sync::Arc;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::Channel;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::address::Address;
use super::network::{Link, Network, Way, open};
use super::view::{State, View};
use super::{PROBE_INTERVAL, PROBE_TIMEOUT, RECONNECT_BASE, RECONNECT_MAX};
use crate::backoff::full_jitter;
use crate::clock::{Random, RandomExt as _};
use crate::inner::Credentials;

/// What all keepers of a service share.
pub(super) struct Keepers {
    pub(super) name: &'static str,
    pub(super) network: Arc<dyn Network>,
    pub(super) credentials: Credentials,
    pub(super) way: Way,
    pub(super) random: Arc<dyn Random>,
    pub(super) view: watch::Sender<View>,
    /// A replica failed: perhaps it is elsewhere now.
    pub(super) failed: Notify,
}

/// Connects again and again, until it is dropped.
pub(super) async fn keep(keepers: Arc<Keepers>, address: Address) {
    let mut failures = 0;
    loop {
        match connect(&keepers, &address).await {
            Ok(link) => {
                let since = Instant::now();
                keepers.set(&address, State::Up(link.channel.clone()));
                let why = stay(&keepers, link).await;
                let lasted = since.elapsed() >= RECONNECT_MAX;
                if lasted {
                    failures = 0;
                }
                match why {
                    // It ended well: it may be back at once.
                    None if failures == 0 => {
                        tracing::info!(upstream = keepers.name, %address, "connection ended");
                        keepers.set(&address, State::Trying);
                        keepers.failed.notify_one();
                        if lasted {
                            continue;
                        }
                    }
                    None => {
                        let why = "its connections do not last".to_owned();
                        keepers.fail(&address, why, failures == 1);
                    }
                    Some(why) => keepers.fail(&address, why, failures == 0),
                }
            }
            Err(why) => keepers.fail(&address, why, failures == 0),
        }
        let random = keepers.random.number();
        sleep(full_jitter(random, RECONNECT_BASE, RECONNECT_MAX, failures)).await;
        failures = failures.saturating_add(1);
    }
}

async fn connect(keepers: &Keepers, address: &Address) -> Result<Link, String> {
    let link = open(&*keepers.network, &keepers.way, address).await?;
    probe(keepers, &link.channel).await?;
    Ok(link)
}

/// Until the connection is gone, or the replica should not be called any more:
/// then why.
async fn stay(keepers: &Keepers, link: Link) -> Option<String> {
    loop {
        tokio::select! {
            biased;
            () = link.gone.cancelled() => return None,
            () = sleep(PROBE_INTERVAL) => {}
        }
        if let Err(why) = probe(keepers, &link.channel).await {
            return (!link.gone.is_cancelled()).then_some(why);
        }
    }
}

/// Asks whether the replica serves, which shows also whether it answers and
/// whether it lets us in.
async fn probe(keepers: &Keepers, channel: &Channel) -> Result<(), String> {
    let mut request = Request::new(HealthCheckRequest::default());
    keepers
        .credentials
        .authorize(request.metadata_mut().as_mut());
    let mut client = HealthClient::new(channel.clone());
    match timeout(PROBE_TIMEOUT, client.check(request)).await {
        Err(_) => Err("does not answer".to_owned()),
        Ok(Ok(answer)) if answer.get_ref().status() == ServingStatus::Serving => Ok(()),
        Ok(Ok(_)) => Err("does not serve".to_owned()),
        // It may be another server, or an older one.
        Ok(Err(status)) if status.code() == Code::Unimplemented => Ok(()),
        Ok(Err(status)) => Err(format!("refuses: {}", status.message())),
    }
}

impl Keepers {
    fn set(&self, address: &Address, state: State) {
        self.view.send_if_modified(|view| view.set(address, state));
    }

    /// Said once, until it was up for a while.
    fn fail(&self, address: &Address, why: String, is_first: bool) {
        if is_first {
            tracing::warn!(upstream = self.name, %address, why, "a replica cannot be called");
        } else {
            tracing::debug!(upstream = self.name, %address, why, "still cannot be called");
        }
        self.set(address, State::Down(why));
        self.failed.notify_one();
    }
}
