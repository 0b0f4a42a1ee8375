//! `grpc.health.v1`: whether the server takes calls, per service and as a whole.

use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, HealthService};

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

    /// Adds the health service to the routes.
    #[must_use]
    pub fn add_to(&self, routes: Routes) -> Routes {
        let service = HealthService::from_health_reporter(self.reporter.clone());
        routes.add_service(tonic_health::pb::health_server::HealthServer::new(service))
    }
}
