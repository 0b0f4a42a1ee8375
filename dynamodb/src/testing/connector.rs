//! Stands where the SDK's connections do.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::config::Credentials;
use aws_sdk_dynamodb::config::http::{HttpRequest, HttpResponse};
use aws_smithy_async::rt::sleep::{SharedAsyncSleep, TokioSleep};
use aws_smithy_async::time::{SharedTimeSource, TimeSource};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::DateTime;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::date_time::Format;
use duologue_proto::ids::UnixMillis;
use duologue_runtime::clock::{Clock, SystemClock};
use duologue_runtime::task;
use serde_json::Value;

use super::engine::{Answer, Engine, refusal};
use super::faults::{Fault, Faults};
use super::ledger::Ledger;
use crate::client::{DynamoDb, Options};

/// How many changes a read that may lag can miss.
const MAX_LAG: u64 = 12;

/// How long before now a request may have been signed, or after.
const SIGNATURE_LIFE: Duration = Duration::from_mins(5);

/// One client's way to an engine, with its faults.
#[derive(Clone)]
pub struct Connector(Arc<Parts>);

struct Parts {
    engine: Arc<Engine>,
    faults: Arc<Faults>,
    ledger: Arc<Ledger>,
    /// DynamoDB's.
    clock: Arc<dyn Clock>,
    /// By which clients sign, where DynamoDB looks at when they did.
    signing: Option<Arc<dyn Clock>>,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}

impl Connector {
    /// A way without faults, by the system's clock.
    pub fn new(engine: Arc<Engine>) -> Self {
        Self::with(engine, Arc::new(Faults::none()), Arc::new(SystemClock))
    }

    /// A way with faults; `clock` is DynamoDB's.
    pub fn with(engine: Arc<Engine>, faults: Arc<Faults>, clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Parts {
            engine,
            faults,
            ledger: Arc::default(),
            clock,
            signing: None,
        }))
    }

    /// Such a way, whose clients sign by `own`: what was signed too long before
    /// DynamoDB's time, or after, is refused.
    pub fn signing_by(
        engine: Arc<Engine>,
        faults: Arc<Faults>,
        clock: Arc<dyn Clock>,
        own: Arc<dyn Clock>,
    ) -> Self {
        Self(Arc::new(Parts {
            engine,
            faults,
            ledger: Arc::default(),
            clock,
            signing: Some(own),
        }))
    }

    /// What passes costs.
    pub fn ledger(&self) -> &Ledger {
        &self.0.ledger
    }

    /// A client that goes this way.
    ///
    /// # Panics
    ///
    /// Never: the Region is given.
    pub fn client(&self, options: Options) -> DynamoDb {
        let sdk = SdkConfig::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new("eu-test-1"))
            .credentials_provider(aws_sdk_dynamodb::config::SharedCredentialsProvider::new(
                Credentials::new("test", "test", None, None, "test"),
            ))
            .sleep_impl(SharedAsyncSleep::new(TokioSleep::new()))
            .http_client(self.clone());
        let sdk = match &self.0.signing {
            Some(own) => sdk.time_source(SharedTimeSource::new(ByClock(Arc::clone(own)))),
            None => sdk,
        };
        let sdk = sdk.build();
        DynamoDb::new(&sdk, options).expect("the Region is given")
    }
}

impl HttpClient for Connector {
    fn http_connector(
        &self,
        _: &HttpConnectorSettings,
        _: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let parts = Arc::clone(&self.0);
        HttpConnectorFuture::new(async move { parts.answer(&request).await })
    }
}

impl Parts {
    async fn answer(
        self: &Arc<Self>,
        request: &HttpRequest,
    ) -> Result<HttpResponse, ConnectorError> {
        let target = request.headers().get("x-amz-target").unwrap_or_default();
        let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
        let body = request.body().bytes().unwrap_or_default();
        let body = String::from_utf8_lossy(body).into_owned();
        if self.signing.is_some() && !self.is_fresh(request) {
            return self.respond(refusal("InvalidSignatureException", "Signature expired"));
        }
        let broken = || ConnectorError::io("a test broke the connection".into());
        let answer = match self.faults.next(&operation) {
            Fault::Pass => self.apply(&operation, &body),
            Fault::Delay(by) => {
                tokio::time::sleep(by).await;
                self.apply(&operation, &body)
            }
            Fault::FailBefore => return Err(broken()),
            Fault::LoseReply => {
                self.apply(&operation, &body);
                return Err(broken());
            }
            Fault::Throttle => refusal("ProvisionedThroughputExceededException", "a test"),
            Fault::Refuse(code) => refusal(code, "a test"),
            Fault::ServerError { applied } => {
                if applied {
                    self.apply(&operation, &body);
                }
                refusal("InternalServerError", "a test")
            }
            Fault::Hang => std::future::pending().await,
            Fault::Late(by) => {
                let parts = Arc::clone(self);
                task::spawn("late request", async move {
                    tokio::time::sleep(by).await;
                    parts.apply(&operation, &body);
                });
                std::future::pending().await
            }
        };
        self.respond(answer)
    }

    fn is_fresh(&self, request: &HttpRequest) -> bool {
        let signed = request.headers().get("x-amz-date").and_then(read_date);
        let now = self.clock.now();
        signed.is_some_and(|at| now.since(at).max(at.since(now)) <= SIGNATURE_LIFE)
    }

    fn apply(&self, operation: &str, body: &str) -> Answer {
        let request: Value = serde_json::from_str(body).unwrap_or_default();
        if is_of_items(operation) && request["ReturnConsumedCapacity"] != "TOTAL" {
            self.ledger.note_uncounted(operation);
            return refusal("ValidationException", "no ReturnConsumedCapacity");
        }
        let lags = matches!(operation, "Query" | "GetItem") && request["ConsistentRead"] != true;
        let (status, text) = if lags {
            let lag = self.faults.below(MAX_LAG);
            self.engine.read_lagging(operation, body, lag)
        } else {
            self.engine.apply(operation, body)
        };
        if status == 200 && is_of_items(operation) {
            let answer = serde_json::from_str(&text).unwrap_or_default();
            self.ledger.count(operation, &answer);
        } else if text.contains("ConditionalCheckFailedException") {
            self.ledger.count_refused(operation, &request);
        }
        (status, text)
    }

    fn respond(&self, (status, text): Answer) -> Result<HttpResponse, ConnectorError> {
        let unfit = |error: String| ConnectorError::other(error.into(), None);
        let status = StatusCode::try_from(status).map_err(|error| unfit(error.to_string()))?;
        let mut response = HttpResponse::new(status, SdkBody::from(text));
        let now = i64::try_from(self.clock.now().0 / 1_000).unwrap_or(i64::MAX);
        let date = DateTime::from_secs(now).fmt(Format::HttpDate);
        let date = date.map_err(|error| unfit(error.to_string()))?;
        let headers = response.headers_mut();
        headers.insert("date", date);
        headers.insert("content-type", "application/x-amz-json-1.0");
        Ok(response)
    }
}

/// For the SDK.
struct ByClock(Arc<dyn Clock>);

impl fmt::Debug for ByClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ByClock")
    }
}

impl TimeSource for ByClock {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.0.now().0)
    }
}

/// `20260131T235959Z`, as a signature names its time.
fn read_date(date: &str) -> Option<UnixMillis> {
    let parts = [0..4, 4..6, 6..8, 9..11, 11..13, 13..15].map(|range| date.get(range));
    let [year, month, day, hour, minute, second] = parts;
    let (year, month, day) = (year?, month?, day?);
    let (hour, minute, second) = (hour?, minute?, second?);
    let text = format!("{year}-{month}-{day}T{hour}:{minute}:{second}Z");
    let date = DateTime::from_str(&text, Format::DateTime).ok()?;
    u64::try_from(date.to_millis().ok()?).ok().map(UnixMillis)
}

/// Whether an operation reads or writes items, and so has a price.
fn is_of_items(operation: &str) -> bool {
    operation == "Query" || operation.contains("Item")
}
