//! The service over a connection: what it promises beyond what history does.

use std::fmt::Debug;
use std::time::Duration;

use duologue_proto::chat::v1::{Body, body};
use duologue_proto::history::v1 as wire;
use duologue_proto::history::v1::history_service_client::HistoryServiceClient;
use duologue_proto::history::{
    ListConversations, ListMessages, ReadRequest, ReadStart, SyncRequest,
};
use duologue_proto::limits::MAX_RUNS_IN_FLIGHT;
use duologue_proto::wire::history as convert;
use duologue_runtime::refusal::Reason;
use duologue_runtime::refusal::services::history_error;
use duologue_runtime::server::STREAM_WINDOW_BYTES;
use duologue_runtime::shutdown::Shutdown;
use duologue_runtime::task;
use hyper_util::rt::TokioIo;
use prost::Message as _;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint, Server, Uri};
use tonic::{Code, Status, Streaming};

use super::faults::PutFault;
use super::*;
use crate::HistoryServer;

const HOUR: Duration = Duration::from_hours(1);

/// What must not take for ever, in paused time.
async fn soon<F: Future>(future: F) -> F::Output {
    let ended = tokio::time::timeout(HOUR * 24, future).await;
    ended.expect("it ends")
}

/// A client of a replica, over a connection that is no socket.
fn client(history: &History, shutdown: &Shutdown) -> HistoryServiceClient<Channel> {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let service = HistoryServer::over(history.clone(), shutdown.clone());
    task::spawn("replica", async move {
        let (connections, incoming) = mpsc::channel::<std::io::Result<DuplexStream>>(1);
        connections.send(Ok(far)).await.unwrap();
        let server = Server::builder()
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .add_service(service);
        let incoming = ReceiverStream::new(incoming);
        server.serve_with_incoming(incoming).await.unwrap();
    });
    let mut near = Some(near);
    let connect = tower::service_fn(move |_: Uri| {
        let near = near.take().map(TokioIo::new);
        std::future::ready(near.ok_or_else(|| std::io::Error::other("connected before")))
    });
    let channel = Endpoint::from_static("http://replica").connect_with_connector_lazy(connect);
    HistoryServiceClient::new(channel)
}

/// One append stream.
struct Stream {
    requests: mpsc::Sender<wire::AppendRequest>,
    answers: Streaming<wire::AppendResponse>,
    /// Answers that came with an earlier one.
    held: Vec<wire::RunAnswer>,
}

impl Stream {
    async fn open(client: &mut HistoryServiceClient<Channel>) -> Self {
        let (requests, sent) = mpsc::channel(1);
        let answers = soon(client.append(ReceiverStream::new(sent)))
            .await
            .unwrap();
        Self {
            requests,
            answers: answers.into_inner(),
            held: Vec::new(),
        }
    }

    async fn ask(&self, runs: Vec<wire::Run>) {
        soon(self.requests.send(wire::AppendRequest { runs }))
            .await
            .unwrap();
    }

    /// The next answer; or how the stream ended.
    async fn next(&mut self) -> Result<Option<(u64, Vec<Told>)>, Status> {
        if self.held.is_empty()
            && let Some(response) = soon(self.answers.message()).await?
        {
            self.held = response.answers;
            self.held.reverse();
        }
        Ok(self.held.pop().map(|answer| {
            assert_eq!(answer.refused, "");
            let answers = convert::read_answers(answer.drafts).unwrap();
            (answer.r#ref, answers.iter().map(told).collect())
        }))
    }

    async fn answer(&mut self) -> (u64, Vec<Told>) {
        self.next().await.unwrap().expect("the stream goes on")
    }
}

/// A run from alice, of one message.
fn to(peer: &str, reference: u64) -> wire::Run {
    let text = Body {
        kind: Some(body::Kind::Text("x".repeat(8_000))),
    };
    let draft = Draft {
        message_id: id(&format!("m{reference}")),
        after_seq: None,
        body: text.encode_to_vec().into(),
        intent: Intent::Store,
    };
    convert::write_run(reference, run("alice", peer, vec![draft]), String::new())
}

fn running() -> Shutdown {
    Shutdown::new(Duration::from_secs(20))
}

#[tokio::test(start_paused = true)]
async fn runs_are_answered_in_the_order_in_which_they_are_settled() {
    let world = World::new();
    let mut stream = Stream::open(&mut client(&world.history, &running())).await;
    world.faults.on_puts([PutFault::Pause(HOUR)]);
    stream.ask(vec![to("bob", 7)]).await;
    while world.faults.take_log().is_empty() {
        tokio::task::yield_now().await;
    }
    stream.ask(vec![to("carol", 8), to("dave", 9)]).await;
    let first = [stream.answer().await, stream.answer().await];
    assert!(first.contains(&(8, vec![Told::New(1)])));
    assert!(first.contains(&(9, vec![Told::New(1)])));
    assert_eq!(stream.answer().await, (7, vec![Told::New(1)]));
    drop(stream.requests);
    assert!(soon(stream.answers.message()).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_run_that_breaks_a_rule_is_refused_by_name_and_disturbs_no_other() {
    let world = World::new();
    let mut stream = Stream::open(&mut client(&world.history, &running())).await;
    let bad = wire::Run {
        peer: "no user".into(),
        ..to("bob", 1)
    };
    stream.ask(vec![bad, to("bob", 2)]).await;
    let mut answers = Vec::new();
    while answers.len() < 2 {
        let response = soon(stream.answers.message()).await.unwrap();
        answers.extend(response.unwrap().answers);
    }
    let refused = answers.iter().find(|answer| answer.r#ref == 1).unwrap();
    assert!(refused.drafts.is_empty() && refused.refused.starts_with("peer "));
    let stored = answers.iter().find(|answer| answer.r#ref == 2).unwrap();
    assert!(stored.refused.is_empty());
    assert_eq!(ids(&world.stored().await), ["m2"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_read_is_stored_though_its_caller_is_gone() {
    let world = World::new();
    let mut client = client(&world.history, &running());
    let stream = Stream::open(&mut client).await;
    world.faults.on_puts([PutFault::Pause(HOUR)]);
    stream.ask(vec![to("bob", 1)]).await;
    while world.faults.take_log().is_empty() {
        tokio::task::yield_now().await;
    }
    drop((stream, client));
    tokio::time::sleep(HOUR * 2).await;
    assert_eq!(ids(&world.stored().await), ["m1"]);
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_refuses_ends_its_append_streams_until_it_can_store() {
    let world = World::new();
    let mut client = client(&world.history, &running());
    let mut stream = Stream::open(&mut client).await;
    world.faults.on_puts([PutFault::Pause(HOUR)]);
    stream.ask(vec![to("bob", 1)]).await;
    while world.faults.take_log().is_empty() {
        tokio::task::yield_now().await;
    }
    world.history.set_refusing(true);
    assert_eq!(stream.answer().await, (1, vec![Told::New(1)]));
    let end = stream.next().await.unwrap_err();
    assert_eq!(end.code(), Code::Unavailable);
    let (_requests, sent) = mpsc::channel(1);
    let refused = soon(client.append(ReceiverStream::new(sent))).await;
    assert_eq!(refused.unwrap_err().code(), Code::Unavailable);
    world.history.set_refusing(false);
    let mut stream = Stream::open(&mut client).await;
    stream.ask(vec![to("bob", 2)]).await;
    assert_eq!(stream.answer().await, (2, vec![Told::New(2)]));
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_drains_answers_what_it_has_read_and_then_ends_the_stream() {
    let world = World::new();
    let shutdown = running();
    let mut stream = Stream::open(&mut client(&world.history, &shutdown)).await;
    world.faults.on_puts([PutFault::Pause(HOUR)]);
    stream.ask(vec![to("bob", 1)]).await;
    while world.faults.take_log().is_empty() {
        tokio::task::yield_now().await;
    }
    shutdown.trigger();
    assert_eq!(stream.answer().await, (1, vec![Told::New(1)]));
    let end = stream.next().await.unwrap_err();
    assert_eq!(end.code(), Code::Unavailable);
    let details = tonic_types::StatusExt::get_error_details(&end);
    assert_eq!(
        details.error_info().unwrap().reason,
        Reason::ShuttingDown.as_str()
    );
}

#[tokio::test(start_paused = true)]
async fn at_a_thousand_runs_without_an_answer_the_stream_is_not_read() {
    const RUNS: u64 = 2_000;
    /// What lies between: windows of HTTP/2, and what a request holds.
    const ON_THE_WAY: u64 = 32;
    let world = World::new();
    let mut stream = Stream::open(&mut client(&world.history, &running())).await;
    world.faults.on_puts([PutFault::Pause(HOUR)]);
    let mut sent = 0;
    while sent < RUNS {
        let request = wire::AppendRequest {
            runs: vec![to("bob", sent + 1)],
        };
        let sending = stream.requests.send(request);
        let moment = Duration::from_secs(30);
        if tokio::time::timeout(moment, sending).await.is_err() {
            break;
        }
        sent += 1;
    }
    let bound = u64::try_from(MAX_RUNS_IN_FLIGHT).unwrap();
    assert!((bound..bound + ON_THE_WAY).contains(&sent), "{sent}");
    // Once they are settled it goes on.
    for number in 1..=sent {
        assert_eq!(stream.answer().await, (number, vec![Told::New(number)]));
    }
    stream.ask(vec![to("bob", sent + 1)]).await;
    assert_eq!(stream.answer().await, (sent + 1, vec![Told::New(sent + 1)]));
}

/// Both say the same of everything that they show.
fn same(one: &impl Debug, other: &impl Debug) {
    assert_eq!(format!("{one:?}"), format!("{other:?}"));
}

#[tokio::test(start_paused = true)]
async fn questions_are_answered_as_within_one_process() {
    let world = World::new();
    let history = &world.history;
    let mut client = client(history, &running());
    fill(history, 1, 5).await;
    let (alice, bob) = (user("alice"), user("bob"));

    let response = client
        .get_history(wire::GetHistoryRequest {})
        .await
        .unwrap();
    let id = convert::read_history_id(&response.get_ref().history_id).unwrap();
    assert_eq!(id, history.history_id().await.unwrap());

    let asked = Cursor::asked(Some(Seq(3)), Some(Seq(2)));
    for asked in [asked, Cursor::asked(Some(Seq(99)), None)] {
        let request = convert::write_advance(&bob, &alice, asked);
        let response = client.advance_cursor(request).await.unwrap();
        let advanced = convert::read_advanced(response.get_ref()).unwrap();
        let expected = match history.advance_cursor(&bob, &alice, asked).await.unwrap() {
            CursorAdvanced::Stored { cursor, .. } => CursorAdvanced::Stored {
                cursor,
                moved: true,
            },
            above @ CursorAdvanced::AboveHead { .. } => above,
        };
        assert_eq!(advanced, expected);
    }

    let request = ReadRequest {
        user: bob.clone(),
        peer: alice.clone(),
        start: ReadStart::After(Seq(1)),
        max_messages: 3,
        max_bytes: 10_000,
    };
    let response = client.read(convert::write_read(&request)).await.unwrap();
    let page = convert::read_read_page(response.get_ref()).unwrap();
    same(&page, &history.read(request).await.unwrap());

    let request = SyncRequest {
        user: bob.clone(),
        token: String::new(),
        named: vec![user("carol")],
        after: None,
        max_conversations: 10,
    };
    let response = client.sync(convert::write_sync(&request)).await.unwrap();
    let page = convert::read_sync_page(response.into_inner()).unwrap();
    same(&page, &history.sync(request).await.unwrap());

    let request = ListMessages {
        user: bob.clone(),
        peer: alice.clone(),
        page_size: 2,
        page_token: String::new(),
        forward: true,
        after_seq: Some(Seq(1)),
        before_seq: None,
    };
    let wired = convert::write_list_messages(&request);
    let response = client.list_messages(wired).await.unwrap();
    let page = convert::read_messages(response.into_inner()).unwrap();
    same(&page, &history.list_messages(request).await.unwrap());

    let request = ListConversations {
        user: bob.clone(),
        page_size: 2,
        page_token: String::new(),
    };
    let wired = convert::write_list_conversations(&request);
    let response = client.list_conversations(wired).await.unwrap();
    let page = convert::read_conversations(response.into_inner()).unwrap();
    same(&page, &history.list_conversations(request).await.unwrap());

    let request = convert::write_list_peers(&bob, None, 10);
    let response = client.list_peers(request).await.unwrap();
    let peers = convert::read_peers(response.get_ref()).unwrap();
    assert_eq!(peers, std::slice::from_ref(&alice));
    for (peer, shared) in [(alice, true), (user("carol"), false)] {
        let request = convert::write_share(&bob, &peer);
        let response = client.share_conversation(request).await.unwrap();
        assert_eq!(response.get_ref().shared, shared);
    }
}

#[tokio::test(start_paused = true)]
async fn refusals_arrive_as_they_were_said() {
    let world = World::new();
    let mut client = client(&world.history, &running());
    fill(&world.history, 1, 3).await;
    let read = wire::ReadRequest {
        user: "bob".into(),
        peer: "alice".into(),
        start: Some(wire::read_request::Start::AfterSeq(9)),
        ..Default::default()
    };
    let refused = client.read(read.clone()).await.unwrap_err();
    let ahead = HistoryError::PositionAhead { head: Seq(3) };
    assert_eq!(history_error(&refused), ahead);

    let sync = wire::SyncRequest {
        user: "bob".into(),
        sync_token: "garbled".into(),
        ..Default::default()
    };
    let refused = client.sync(sync).await.unwrap_err();
    assert_eq!(history_error(&refused), HistoryError::InvalidSyncToken);

    let list = wire::ListConversationsRequest {
        user: "bob".into(),
        page_size: 1,
        page_token: "garbled".into(),
    };
    let refused = client.list_conversations(list).await.unwrap_err();
    assert_eq!(history_error(&refused), HistoryError::InvalidPageToken);

    world.faults.fail_reads(1);
    let refused = client.read(read.clone()).await.unwrap_err();
    let retry_after = Some(crate::limits::RETRY_AFTER);
    assert_eq!(
        history_error(&refused),
        HistoryError::Unavailable { retry_after }
    );

    let nobody = wire::ReadRequest {
        user: String::new(),
        ..read
    };
    let refused = client.read(nobody).await.unwrap_err();
    let details = tonic_types::StatusExt::get_error_details(&refused);
    let violations = &details.bad_request().unwrap().field_violations;
    assert_eq!(violations[0].field, "user");
}
