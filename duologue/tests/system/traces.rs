//! One send, as a collector sees it: one trace through every process of the split
//! system, whichever way it was sent.
//!
//! Each program has a thread, a runtime and telemetry of its own, as in a process.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use clap::Parser as _;
use duologue_proto::chat::v1::converse_response::Frame;
use duologue_proto::chat::v1::{ListConversationsRequest, SendMessageRequest};
use duologue_runtime::metrics::BuildInfo;
use duologue_runtime::process::{InnerListeners, ProcessError};
use duologue_runtime::shutdown::Shutdown;
use duologue_runtime::task;
use duologue_runtime::telemetry::{self, LogFormat, TelemetryConfig};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use super::programs::{as_user, make_key, token};
use crate::support::calls::text;
use crate::support::frames::{hello, send};
use crate::support::page::Page;
use crate::support::{Session, soon};
use tokio::net::TcpStream;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";
const GRACE: Duration = Duration::from_secs(5);

/// What the programs export, by their names.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<BTreeMap<&'static str, Vec<Span>>>>);

/// Where one program exports to.
struct Sink(&'static str, Collector);

#[tonic::async_trait]
impl TraceService for Sink {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let resources = request.into_inner().resource_spans.into_iter();
        let scopes = resources.flat_map(|resource| resource.scope_spans);
        let spans = scopes.flat_map(|scope| scope.spans);
        let mut all = self.1.0.lock().unwrap();
        all.entry(self.0).or_default().extend(spans);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// Listens to one program; returns the endpoint.
    async fn listen(&self, program: &'static str) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let sink = TraceServiceServer::new(Sink(program, self.clone()));
        let server = tonic::transport::Server::builder()
            .add_service(sink)
            .serve_with_incoming(TcpListenerStream::new(listener));
        task::spawn("collector", server);
        endpoint
    }

    /// The spans of one program with this name.
    fn named(&self, program: &str, name: &str) -> Vec<Span> {
        let all = self.0.lock().unwrap();
        let spans = all.get(program).into_iter().flatten();
        spans.filter(|span| span.name == name).cloned().collect()
    }

    /// The only span of one program with this name in this trace.
    fn one(&self, program: &str, name: &str, trace: &[u8]) -> Span {
        let mut named = self.named(program, name);
        named.retain(|span| span.trace_id == trace);
        assert_eq!(named.len(), 1, "{program}, {name}: {named:?}");
        named.remove(0)
    }
}

/// A program that exports what it does. It ends with `shutdown`.
fn program<F>(
    name: &'static str,
    endpoint: String,
    serve: impl FnOnce() -> F + Send + 'static,
) -> JoinHandle<()>
where
    F: Future<Output = Result<(), ProcessError>>,
{
    let config = TelemetryConfig {
        build: BuildInfo::of(name),
        filter: "info".to_owned(),
        format: LogFormat::Json,
        otlp_endpoint: Some(endpoint),
    };
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (dispatch, guard) = telemetry::build(&config, std::io::sink).unwrap();
            let watch = telemetry::watch(dispatch);
            serve().await.unwrap();
            drop(watch);
            guard.finish().await;
        });
    })
}

/// A listener that is bound already, so that everybody knows it.
fn bind() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn taken(listener: TcpListener) -> tokio::net::TcpListener {
    tokio::net::TcpListener::from_std(listener).unwrap()
}

/// The split system.
struct Programs {
    /// Where users reach each chat node.
    users: [SocketAddr; 2],
    /// Where browsers reach the gateway, which stands before the first of them.
    web: SocketAddr,
    shutdown: Shutdown,
    threads: Vec<JoinHandle<()>>,
}

impl Programs {
    async fn start(dir: &Path, collector: &Collector) -> Self {
        let shutdown = Shutdown::new(GRACE);
        let (history, keeps) = bind();
        let (presence, knows) = bind();
        let mut threads = vec![
            {
                use duologue_history::serve::{ServeConfig, serve};
                let config = ["history", "--internal-listen=127.0.0.1:0", "--data=memory"];
                let config = ServeConfig::parse_from(config);
                let shutdown = shutdown.clone();
                program("history", collector.listen("history").await, || {
                    let (inner, admin) = (taken(history), taken(bind().0));
                    serve(config, InnerListeners { inner, admin }, shutdown)
                })
            },
            {
                use duologue_presence::serve::{ServeConfig, serve};
                let config = ["presence", "--internal-listen=127.0.0.1:0"];
                let config = ServeConfig::parse_from(config);
                let shutdown = shutdown.clone();
                program("presence", collector.listen("presence").await, || {
                    let (inner, admin) = (taken(presence), taken(bind().0));
                    serve(config, InnerListeners { inner, admin }, shutdown)
                })
            },
        ];
        let mut users = Vec::new();
        for name in ["chat-1", "chat-2"] {
            use duologue_chat::serve::{Listeners, ServeConfig, serve};
            let config = ServeConfig::parse_from([
                "chat".to_owned(),
                "--internal-listen=127.0.0.1:0".to_owned(),
                "--drain-spread=10ms".to_owned(),
                format!("--node={name}"),
                format!("--history=http://{keeps}"),
                format!("--presence=http://{knows}"),
                format!("--jwt-public-key={}", dir.join("public.pem").display()),
            ]);
            let (public, address) = bind();
            users.push(address);
            let shutdown = shutdown.clone();
            let endpoint = collector.listen(name).await;
            threads.push(program(name, endpoint, || {
                let listeners = Listeners {
                    public: taken(public),
                    inner: taken(bind().0),
                    admin: taken(bind().0),
                };
                serve(config, listeners, shutdown)
            }));
        }
        let (listener, web) = bind();
        threads.push({
            use duologue_gateway::serve::{Listeners, ServeConfig, serve};
            let chat = format!("--chat=http://{}", users[0]);
            let config = ServeConfig::parse_from(["gateway", &chat]);
            let shutdown = shutdown.clone();
            program("gateway", collector.listen("gateway").await, || {
                let (web, admin) = (taken(listener), taken(bind().0));
                serve(config, Listeners { web, admin }, shutdown)
            })
        });
        Self {
            web,
            users: users.try_into().unwrap(),
            shutdown,
            threads,
        }
    }

    /// Ends every program; then everything is exported.
    async fn end(self) {
        self.shutdown.trigger();
        let join = || {
            for thread in self.threads {
                thread.join().unwrap();
            }
        };
        tokio::task::spawn_blocking(join).await.unwrap();
    }
}

#[tokio::test]
async fn one_send_is_one_trace_through_every_program() {
    let dir = tempfile::tempdir().unwrap();
    let key = make_key(dir.path());
    let collector = Collector::default();
    let programs = Programs::start(dir.path(), &collector).await;
    let mut alice = as_user(programs.users[0], &token(&key, "alice")).await;
    let bob = as_user(programs.users[1], &token(&key, "bob")).await;
    let (mut speaking, ..) = Session::caught_up(&alice, hello()).await;
    let (mut listening, ..) = Session::caught_up(&bob, hello()).await;

    let stored = speaking.ask(1, send("bob", "m1", "by the stream")).await;
    assert!(matches!(stored, Frame::Stored(_)), "{stored:?}");
    listening.messages(1).await;
    let mut request = Request::new(SendMessageRequest {
        peer: "bob".to_owned(),
        message_id: Some("m2".to_owned()),
        after_seq: None,
        body: Some(text("by a call")),
    });
    let traceparent = format!("00-{TRACE}-{PARENT}-01").parse().unwrap();
    request.metadata_mut().insert("traceparent", traceparent);
    alice.send_message(request).await.unwrap();
    listening.messages(1).await;
    drop((alice, bob, speaking, listening));
    programs.end().await;

    let sends = collector.named("chat-1", "send");
    assert_eq!(sends.len(), 2, "{sends:?}");
    for send in &sends {
        let trace = &send.trace_id;
        let append = collector.one("history", "append", trace);
        assert_eq!(append.parent_span_id, send.span_id);
        // Of both users' routes, since both may have sessions elsewhere.
        let get_routes = "duologue.presence.v1.PresenceService/GetRoutes";
        let asked = collector.named("chat-1", get_routes);
        let asked: Vec<_> = asked.iter().filter(|it| it.trace_id == *trace).collect();
        let answered = collector.named("presence", get_routes);
        let is_asked = |span: &&Span| asked.iter().any(|it| it.span_id == span.parent_span_id);
        assert_eq!(asked.len(), 2, "{asked:?}");
        assert_eq!(answered.iter().filter(is_asked).count(), 2, "{answered:?}");
        let relayed = collector.one("chat-2", "relayed", trace);
        assert_eq!(relayed.parent_span_id, send.span_id);
    }
    // A call goes on with its caller's trace; of a stream each run is a trace of its
    // own, and names the session.
    let (by_call, by_stream): (Vec<_>, Vec<_>) =
        sends.iter().partition(|send| hex(&send.trace_id) == TRACE);
    assert_eq!((by_call.len(), by_stream.len()), (1, 1));
    let sessions = collector.named("chat-1", "session");
    let [link] = &by_stream[0].links[..] else {
        panic!("{by_stream:?}");
    };
    assert!(sessions.iter().any(|it| it.span_id == link.span_id));
    let all = format!("{:?}", collector.0.lock().unwrap());
    assert!(!all.contains("by the stream") && !all.contains("by a call"));
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::new(), |it, b| format!("{it}{b:02x}"))
}

#[tokio::test]
async fn a_send_of_a_page_is_one_trace_with_its_gateway() {
    /// Kinds of spans.
    const SERVER: i32 = 2;
    const CLIENT: i32 = 3;
    let dir = tempfile::tempdir().unwrap();
    let key = make_key(dir.path());
    let collector = Collector::default();
    let programs = Programs::start(dir.path(), &collector).await;
    // The gateway listens from the start, and chat may not.
    let mut bob = as_user(programs.users[0], &token(&key, "bob")).await;
    bob.list_conversations(ListConversationsRequest::default())
        .await
        .unwrap();
    drop(bob);
    let request = SendMessageRequest {
        peer: "bob".to_owned(),
        message_id: Some("m1".to_owned()),
        after_seq: None,
        body: Some(text("by a page")),
    };
    let traceparent = format!("00-{TRACE}-{PARENT}-01");
    let more = [("traceparent", &*traceparent)];
    let (web, alice) = (programs.web, token(&key, "alice"));
    let stream = soon(TcpStream::connect(web)).await.unwrap();
    let mut page = Page::call_on(stream, web, "SendMessage", &alice, &request, &more).await;
    let (code, trailers) = page.status().await;
    assert_eq!(code, 0, "{trailers}");
    drop(page);
    programs.end().await;

    let name = "duologue.chat.v1.ChatService/SendMessage";
    let of_kind = |program: &str, kind: i32| {
        let mut spans = collector.named(program, name);
        spans.retain(|span| span.kind == kind && hex(&span.trace_id) == TRACE);
        assert_eq!(spans.len(), 1, "{program}: {spans:?}");
        spans.remove(0)
    };
    let came = of_kind("gateway", SERVER);
    assert_eq!(hex(&came.parent_span_id), PARENT);
    let went = of_kind("gateway", CLIENT);
    assert_eq!(went.parent_span_id, came.span_id);
    let arrived = of_kind("chat-1", SERVER);
    assert_eq!(arrived.parent_span_id, went.span_id);
    let all = format!("{:?}", collector.0.lock().unwrap());
    assert!(!all.contains("by a page") && !all.contains(&alice));
}
