//! `grpc.health.v1`: whether the server takes calls, per service and as a whole.

use tokio::sync::watch;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, HealthService};

use crate::shutdown::Shutdown;

/// The state that health reports. It begins as "not serving".
#[derive(Debug, Clone)]
pub struct Health {
    reporter: HealthReporter,
    services: Vec<&'static str>,
}

impl Health {
    /// Reports on these services, by full name, and on `""`, the whole server.
    pub async fn new(services: &[&'static str]) -> Self {
        let this = Self {
            reporter: HealthReporter::new(),
            services: services.iter().copied().chain([""]).collect(),
        };
        this.set(false).await;
        this
    }

    /// Tells whether the server takes calls.
    pub async fn set(&self, serving: bool) {
        let status = if serving {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        for service in &self.services {
            self.reporter.set_service_status(service, status).await;
        }
    }

    /// Says "serving", unless the process leaves; it may begin to while this is told.
    pub async fn serve(&self, shutdown: &Shutdown) {
        if !shutdown.is_leaving() {
            self.set(true).await;
            if shutdown.is_leaving() {
                self.set(false).await;
            }
        }
    }

    /// Tells, for as long as somebody says it, whether a server that is open can do its
    /// work: "not serving" while it cannot, and "serving" again, unless it leaves. What
    /// cannot be is told at every saying, since the server may have opened meanwhile.
    pub async fn follow(self, mut can_work: watch::Receiver<bool>, shutdown: Shutdown) {
        let mut failing = false;
        while can_work.changed().await.is_ok() {
            let works = *can_work.borrow_and_update();
            if !works {
                self.set(false).await;
            } else if failing {
                self.serve(&shutdown).await;
            }
            failing = !works;
        }
    }

    /// Adds the health service to the routes.
    #[must_use]
    pub fn add_to(&self, routes: Routes) -> Routes {
        let service = HealthService::from_health_reporter(self.reporter.clone());
        routes.add_service(tonic_health::pb::health_server::HealthServer::new(service))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tonic::Request;
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_server::Health as _;

    use super::*;
    use crate::task;

    async fn serves(health: &Health) -> bool {
        let service = HealthService::from_health_reporter(health.reporter.clone());
        let asked = Request::new(HealthCheckRequest::default());
        let answer = service.check(asked).await.unwrap().into_inner();
        answer.status == ServingStatus::Serving as i32
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_serves_while_it_can_work_and_never_again_once_it_leaves() {
        let health = Health::new(&["s"]).await;
        let shutdown = Shutdown::new(Duration::ZERO);
        let (can_work, said) = watch::channel(true);
        let following = health.clone().follow(said, shutdown.clone());
        let _following = task::spawn("health", following);
        let told = async |works| {
            can_work.send_replace(works);
            tokio::time::sleep(Duration::from_millis(1)).await;
            serves(&health).await
        };
        assert!(!told(true).await, "it has not opened");
        health.set(true).await;
        assert!(told(true).await);
        assert!(!told(false).await);
        health.set(true).await;
        assert!(!told(false).await, "it opened meanwhile");
        assert!(told(true).await);
        assert!(!told(false).await);
        shutdown.trigger();
        assert!(!told(true).await);
    }
}
