//! A call's span as a collector receives it.

#![expect(clippy::unwrap_used, reason = "these are tests")]

mod support;

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use duologue_proto::chat::v1 as wire;
use duologue_runtime::metrics::BuildInfo;
use duologue_runtime::task;
use duologue_runtime::telemetry::{self, LogFormat, TelemetryConfig, TelemetryError, propagation};
use futures_util::stream;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use support::{Server, from_alice, presence_of};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};
use tracing::Instrument as _;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// Listens on a port of the system's choice; returns its endpoint.
    async fn start(&self) -> String {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let server = tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(self.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        task::spawn("collector", server);
        endpoint
    }

    fn resource(&self, key: &str) -> Option<Value> {
        let received = self.0.lock().unwrap();
        let resource = received[0].resource_spans[0].resource.clone().unwrap();
        let attribute = resource.attributes.into_iter().find(|pair| pair.key == key);
        attribute?.value?.value
    }

    fn spans(&self) -> Vec<Span> {
        let received = self.0.lock().unwrap();
        let resources = received.iter().flat_map(|request| &request.resource_spans);
        let scopes = resources.flat_map(|resource| &resource.scope_spans);
        scopes.flat_map(|scope| scope.spans.clone()).collect()
    }

    fn span(&self, name: &str) -> Span {
        let spans = self.spans();
        let named = spans.iter().find(|span| span.name == name).cloned();
        named.unwrap_or_else(|| panic!("{name} is not among {spans:?}"))
    }
}

fn config(otlp_endpoint: Option<String>) -> TelemetryConfig {
    TelemetryConfig {
        build: BuildInfo::of("duologue"),
        filter: "info".to_owned(),
        format: LogFormat::Json,
        otlp_endpoint,
    }
}

fn attribute(span: &Span, key: &str) -> Option<Value> {
    let pair = span.attributes.iter().find(|pair| pair.key == key)?;
    pair.value.clone()?.value
}

fn text(value: &str) -> Value {
    Value::StringValue(value.to_owned())
}

fn traced<T>(message: T) -> Request<T> {
    let mut request = from_alice(message);
    let parent = format!("00-{TRACE}-{PARENT}-01").parse().unwrap();
    request.metadata_mut().insert("traceparent", parent);
    request
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

#[tokio::test]
async fn a_call_is_exported_with_its_parent_its_name_and_its_status() {
    let collector = Collector::default();
    let endpoint = collector.start().await;
    let (dispatch, guard) = telemetry::build(&config(Some(endpoint)), std::io::sink).unwrap();
    let watch = telemetry::watch(dispatch);

    let server = Server::start().await;
    let mut client = server.client().await;
    client
        .get_presence(traced(presence_of("bob")))
        .await
        .unwrap();
    client
        .advance_cursor(traced(wire::AdvanceCursorRequest::default()))
        .await
        .unwrap_err();
    client
        .get_presence(traced(presence_of("panic")))
        .await
        .unwrap_err();
    let frames = client.converse(traced(stream::pending())).await.unwrap();
    drop(client);
    server.shutdown.stop();
    server.served.await.unwrap();
    drop((frames, watch));
    guard.finish().await;

    let service = "duologue.chat.v1.ChatService";
    assert_eq!(collector.resource("service.name"), Some(text("duologue")));
    let spans = collector.spans();
    assert_eq!(spans.len(), 4, "{spans:?}");
    for span in &spans {
        assert_eq!(hex(&span.trace_id), TRACE, "{span:?}");
        assert_eq!(hex(&span.parent_span_id), PARENT, "{span:?}");
        assert_eq!(span.kind, 2, "a server's span: {span:?}");
        assert_eq!(attribute(span, "rpc.system"), Some(text("grpc")));
        assert_eq!(attribute(span, "rpc.service"), Some(text(service)));
        assert!(!format!("{span:?}").contains("alice"), "{span:?}");
    }
    let by_code = |code: i64| {
        let code = Some(Value::IntValue(code));
        let has_code = |span: &&Span| attribute(span, "rpc.grpc.status_code") == code;
        spans.iter().find(has_code).cloned().unwrap()
    };
    let ok = by_code(0);
    assert_eq!(ok.name, format!("{service}/GetPresence"));
    assert_eq!(attribute(&ok, "rpc.method"), Some(text("GetPresence")));
    assert_eq!(ok.status.unwrap_or_default().code, 0);
    // The caller's fault is no error of the server.
    let refused = by_code(9);
    assert_eq!(refused.name, format!("{service}/AdvanceCursor"));
    assert_eq!(refused.status.unwrap_or_default().code, 0);
    assert_eq!(by_code(13).status.unwrap_or_default().code, 2);
    // A stream is recorded when it ends, and not when its headers were sent.
    assert_eq!(collector.span(&format!("{service}/Converse")), by_code(1));
}

#[tokio::test]
async fn a_client_gives_its_trace_to_the_server_that_it_calls() {
    let collector = Collector::default();
    let endpoint = collector.start().await;
    let (dispatch, guard) = telemetry::build(&config(Some(endpoint)), std::io::sink).unwrap();
    let watch = telemetry::watch(dispatch);

    let server = Server::start().await;
    let mut client = server.client().await;
    let span = tracing::info_span!("caller");
    let mut request = from_alice(presence_of("bob"));
    let mut headers = http::HeaderMap::new();
    propagation::inject(&span, &mut headers);
    let headers = tonic::metadata::MetadataMap::from_headers(headers);
    request
        .metadata_mut()
        .insert("traceparent", headers.get("traceparent").unwrap().clone());
    client.get_presence(request).instrument(span).await.unwrap();
    drop(client);
    server.shutdown.stop();
    server.served.await.unwrap();
    drop(watch);
    guard.finish().await;

    let caller = collector.span("caller");
    let call = collector.span("duologue.chat.v1.ChatService/GetPresence");
    assert_eq!(call.trace_id, caller.trace_id);
    assert_eq!(call.parent_span_id, caller.span_id);
}

#[tokio::test]
async fn what_is_made_for_traces_alone_is_not_made_without_a_collector() {
    let made = |endpoint: Option<String>| {
        let (dispatch, _guard) = telemetry::build(&config(endpoint), std::io::sink).unwrap();
        tracing::dispatcher::with_default(&dispatch, || {
            let span = tracing::info_span!(target: telemetry::TRACED, "send");
            let trace = span.in_scope(propagation::Trace::current);
            (!span.is_disabled(), trace.is_some())
        })
    };
    let collector = Collector::default().start().await;
    assert_eq!(made(Some(collector)), (true, true));
    assert_eq!(made(None), (false, false));
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn only_duologue_can_be_asked_for_lines_below_info() {
    let lines = Lines::default();
    let writer = lines.clone();
    let mut config = config(None);
    config.filter = "trace".to_owned();
    let (dispatch, _guard) = telemetry::build(&config, move || writer.clone()).unwrap();
    tracing::dispatcher::with_default(&dispatch, || {
        tracing::trace!(target: "duologue_chat::session", "ours");
        tracing::debug!(target: "h2::codec", "theirs");
        tracing::info!(target: "h2::codec", "theirs at info");
    });
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let messages: Vec<_> = lines
        .iter()
        .map(|line| line["message"].as_str().unwrap())
        .collect();
    assert_eq!(messages, ["ours", "theirs at info"]);
}

#[tokio::test]
async fn a_bad_filter_or_endpoint_is_refused_with_an_example() {
    let refused = |config: &TelemetryConfig| match telemetry::build(config, std::io::sink) {
        Ok(_) => panic!("{config:?} is not refused"),
        Err(error) => error,
    };
    let mut bad_filter = config(None);
    bad_filter.filter = "duologue=loud".to_owned();
    let error = refused(&bad_filter);
    assert!(matches!(error, TelemetryError::Filter(_)), "{error}");
    assert!(
        error.to_string().contains("info,duologue_chat=debug"),
        "{error}"
    );
    for endpoint in ["https://collector:4317", "not an address"] {
        let error = refused(&config(Some(endpoint.to_owned())));
        assert!(matches!(error, TelemetryError::Endpoint(_)), "{error}");
        assert!(
            error.to_string().contains("http://127.0.0.1:4317"),
            "{error}"
        );
    }
}
