//! The client of DynamoDB: configured as the AWS SDK is anywhere, with the timeouts
//! and retries that Duologue needs.
//!
//! It must not retry in silence where a retry changes what an answer means.

use std::sync::Arc;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::retry::{RetryPartition, TokenBucket};
use aws_sdk_dynamodb::config::{Builder, StalledStreamProtectionConfig};

use crate::server_time::{Observer, ServerTime};
use crate::tables::TableSpec;

/// Until a connection to DynamoDB stands.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Of one try, from its signature to its whole answer. DynamoDB answers in
/// milliseconds; a try that takes so long is lost.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);
/// Of a call, with all its tries.
pub const OPERATION_TIMEOUT: Duration = Duration::from_secs(5);
/// Tries of a call that may be repeated.
pub const MAX_ATTEMPTS: u32 = 3;

/// What the SDK's own configuration does not say.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Stands before the name of every table.
    pub table_prefix: String,
    /// The one Region that may write to tables that have replicas in others.
    pub home_region: Option<String>,
}

/// Access to DynamoDB. Clones share connections and credentials.
#[derive(Debug, Clone)]
pub struct DynamoDb {
    repeating: Client,
    once: Client,
    options: Options,
    region: String,
    server_time: Arc<ServerTime>,
}

/// Why there is no access at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Neither environment, nor profile, nor instance name one.
    #[error("no AWS Region is configured: set AWS_REGION, or `region` in the profile")]
    NoRegion,
}

impl DynamoDb {
    /// Access as the SDK's own configuration has it: `AWS_*`, profiles, ECS, web
    /// identity, and `AWS_ENDPOINT_URL_DYNAMODB`. Asks DynamoDB nothing yet.
    pub async fn from_environment(options: Options) -> Result<Self, ConfigError> {
        let sdk = aws_config::defaults(BehaviorVersion::v2026_01_12()).load();
        Self::new(&sdk.await, options)
    }

    /// Access with a configuration of the SDK.
    pub fn new(sdk: &SdkConfig, options: Options) -> Result<Self, ConfigError> {
        let region = sdk.region().ok_or(ConfigError::NoRegion)?.to_string();
        let server_time = Arc::new(ServerTime::default());
        // The SDK's own would be shared with every other client of the process.
        let budget = RetryPartition::custom("duologue").token_bucket(TokenBucket::default());
        let base = Builder::from(sdk)
            .retry_partition(budget.build())
            .interceptor(Observer::new(&server_time))
            .timeout_config(timeouts())
            // An attempt's timeout covers the body of its answer, too.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        let repeating = RetryConfig::standard().with_max_attempts(MAX_ATTEMPTS);
        let client = |retries| Client::from_conf(base.clone().retry_config(retries).build());
        Ok(Self {
            repeating: client(repeating),
            once: client(RetryConfig::disabled()),
            options,
            region,
            server_time,
        })
    }

    /// For reads, and for writes that may be applied twice. The SDK repeats what
    /// failed, with backoff and jitter, within a budget that all of them share.
    pub fn repeating(&self) -> &Client {
        &self.repeating
    }

    /// For conditional puts. The SDK's repetition of one that succeeded would report
    /// a failed condition: the put's own success, taken for another's.
    pub fn once(&self) -> &Client {
        &self.once
    }

    /// The name of a table.
    pub fn table(&self, spec: &TableSpec) -> String {
        format!("{}{}", self.options.table_prefix, spec.name)
    }

    /// What the SDK's configuration does not say.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The Region that is talked to.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// DynamoDB's clock, as its answers tell it.
    pub fn server_time(&self) -> &Arc<ServerTime> {
        &self.server_time
    }
}

fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_attempt_timeout(ATTEMPT_TIMEOUT)
        .operation_timeout(OPERATION_TIMEOUT)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_region_there_is_no_client() {
        let sdk = SdkConfig::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .build();
        let refused = DynamoDb::new(&sdk, Options::default());
        assert_eq!(refused.err(), Some(ConfigError::NoRegion));
    }
}
