//! What becomes of a run.

use bytes::Bytes;
use duologue_proto::history::v1::history_service_server::{HistoryService, HistoryServiceServer};
use duologue_proto::history::{
    Appended, Draft, HistoryError, Intent, OnAppended, Run, Unsettled, UnsettledReason, v1 as wire,
};
use duologue_proto::ids::{ConversationId, MessageId, Seq, UnixMillis};
use duologue_proto::message::Envelope;
use duologue_proto::wire::history as convert;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tonic::{Response, Streaming};

use super::*;
use crate::ports::History as _;

/// A replica whose streams are answered by the test.
struct Scripted(mpsc::Sender<Opened>);

/// One append stream, from its other end.
struct Opened {
    requests: Streaming<wire::AppendRequest>,
    answers: mpsc::Sender<Result<wire::AppendResponse, Status>>,
}

impl Opened {
    /// The runs of the next request.
    async fn runs(&mut self) -> Vec<wire::Run> {
        let request = soon(self.requests.message()).await.unwrap();
        request.expect("the stream goes on").runs
    }

    async fn answer(&self, answers: Vec<wire::RunAnswer>) {
        let response = Ok(wire::AppendResponse { answers });
        soon(self.answers.send(response)).await.unwrap();
    }
}

type Answer<T> = Result<Response<T>, Status>;

fn never<T>() -> Answer<T> {
    Err(Status::unimplemented("not scripted"))
}

#[tonic::async_trait]
impl HistoryService for Scripted {
    type AppendStream = ReceiverStream<Result<wire::AppendResponse, Status>>;

    async fn get_history(
        &self,
        _: Request<wire::GetHistoryRequest>,
    ) -> Answer<wire::GetHistoryResponse> {
        Ok(Response::new(wire::GetHistoryResponse {
            history_id: "not an id".into(),
        }))
    }

    async fn append(
        &self,
        requests: Request<Streaming<wire::AppendRequest>>,
    ) -> Answer<Self::AppendStream> {
        let (answers, sent) = mpsc::channel(64);
        let requests = requests.into_inner();
        let _ = self.0.send(Opened { requests, answers }).await;
        Ok(Response::new(ReceiverStream::new(sent)))
    }

    async fn read(&self, _: Request<wire::ReadRequest>) -> Answer<wire::ReadResponse> {
        std::future::pending().await
    }

    async fn sync(&self, _: Request<wire::SyncRequest>) -> Answer<wire::SyncResponse> {
        never()
    }

    async fn advance_cursor(
        &self,
        _: Request<wire::AdvanceCursorRequest>,
    ) -> Answer<wire::AdvanceCursorResponse> {
        never()
    }

    async fn list_messages(
        &self,
        _: Request<wire::ListMessagesRequest>,
    ) -> Answer<wire::ListMessagesResponse> {
        never()
    }

    async fn list_conversations(
        &self,
        _: Request<wire::ListConversationsRequest>,
    ) -> Answer<wire::ListConversationsResponse> {
        never()
    }

    async fn list_peers(
        &self,
        _: Request<wire::ListPeersRequest>,
    ) -> Answer<wire::ListPeersResponse> {
        never()
    }

    async fn share_conversation(
        &self,
        _: Request<wire::ShareConversationRequest>,
    ) -> Answer<wire::ShareConversationResponse> {
        never()
    }
}

/// One scripted replica, and the streams that are opened to it.
fn replica(name: &str) -> (Place, mpsc::Receiver<Opened>) {
    let (opened, streams) = mpsc::channel(8);
    let routes = Routes::new(HistoryServiceServer::new(Scripted(opened)));
    (Place::new(name, routes), streams)
}

fn history(places: &[&Place]) -> RemoteHistory {
    let replicas = places.iter().map(|place| place.replica.clone());
    RemoteHistory::new(replicas.collect(), &random())
}

/// History with one replica and an open stream.
async fn opened() -> (RemoteHistory, Place, Opened, mpsc::Receiver<Opened>) {
    let (place, mut streams) = replica("one");
    let history = history(&[&place]);
    let stream = soon(streams.recv()).await.unwrap();
    while !history.replicas_open() {
        tokio::task::yield_now().await;
    }
    (history, place, stream, streams)
}

fn run(peer: &str, ids: &[&str]) -> Run {
    let drafts = ids.iter().map(|id| Draft {
        message_id: MessageId::parse(id).unwrap(),
        after_seq: Some(Seq::ZERO),
        body: Bytes::new(),
        intent: Intent::Store,
    });
    Run {
        sender: user("alice"),
        peer: user(peer),
        drafts: drafts.collect(),
    }
}

/// Appends; what comes of it arrives at the receiver.
async fn append(history: &RemoteHistory, run: Run) -> oneshot::Receiver<Vec<Appended>> {
    let (answer, answers) = oneshot::channel();
    let answered = OnAppended::new(run.drafts.len(), |appended| drop(answer.send(appended)));
    history.append(run, answered).await;
    answers
}

/// What the replica answers when it has stored every draft from `first` on.
fn stored(run: &wire::Run, first: u64) -> wire::RunAnswer {
    let read = convert::read_run(run.clone()).unwrap();
    let answers = (first..).zip(read.drafts).map(|(seq, draft)| {
        let (sender, peer) = (read.sender.clone(), read.peer.clone());
        let (id, at) = (draft.message_id, UnixMillis(1));
        Appended::Stored {
            envelope: Envelope::seal(Seq(seq), id, sender, peer, at, &draft.body),
            duplicate: false,
        }
    });
    convert::write_answers(run.r#ref, &answers.collect::<Vec<_>>())
}

fn seqs(answers: &[Appended]) -> Vec<u64> {
    let seq = |answer: &Appended| match answer {
        Appended::Stored { envelope, .. } => envelope.seq.0,
        Appended::MessageIdReused | Appended::Unsettled(_) => 0,
    };
    answers.iter().map(seq).collect()
}

fn assert_unsettled(answers: &[Appended], count: usize) {
    assert_eq!(answers.len(), count);
    for answer in answers {
        let unavailable = matches!(answer, Appended::Unsettled(unsettled)
            if unsettled.reason == UnsettledReason::Unavailable);
        assert!(unavailable, "{answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn runs_are_answered_by_their_numbers_in_the_order_of_the_answers() {
    let (history, _place, mut stream, _streams) = opened().await;
    let order = Arc::new(Mutex::new(Vec::new()));
    for name in ["bob", "carol", "dave"] {
        let order = Arc::clone(&order);
        let run = run(name, &["m1", "m2"]);
        let answered = OnAppended::new(2, move |answers| {
            order.lock().unwrap().push((name, seqs(&answers)));
        });
        history.append(run, answered).await;
    }
    let mut runs = Vec::new();
    while runs.len() < 3 {
        runs.extend(stream.runs().await);
    }
    let (first, others) = (
        stored(&runs[2], 5),
        [stored(&runs[0], 1), stored(&runs[1], 8)],
    );
    stream.answer(vec![first]).await;
    stream.answer(others.to_vec()).await;
    while order.lock().unwrap().len() < 3 {
        tokio::task::yield_now().await;
    }
    let order = order.lock().unwrap().clone();
    let expected = [("dave", [5, 6]), ("bob", [1, 2]), ("carol", [8, 9])];
    assert_eq!(order, expected.map(|(name, seqs)| (name, seqs.to_vec())));
}

#[tokio::test(start_paused = true)]
async fn what_waits_while_a_request_is_on_its_way_travels_together() {
    const RUNS: usize = 1_000;
    let (history, _place, mut stream, _streams) = opened().await;
    let mut answers = Vec::new();
    for number in 0..RUNS {
        let id = format!("m{number}");
        answers.push(append(&history, run("bob", &[&id])).await);
    }
    let (mut requests, mut sent) = (0, Vec::new());
    while sent.len() < RUNS {
        sent.extend(stream.runs().await);
        requests += 1;
    }
    assert!(requests < RUNS / 50, "{requests} requests");
    let ids = |run: &wire::Run| run.drafts[0].message_id.clone();
    let in_order = (0..RUNS).map(|number| format!("m{number}"));
    assert!(
        sent.iter().map(ids).eq(in_order),
        "not in the order of arrival"
    );
    stream
        .answer(sent.iter().map(|run| stored(run, 1)).collect())
        .await;
    for answer in answers {
        assert_eq!(seqs(&soon(answer).await.unwrap()), [1]);
    }
}

#[tokio::test(start_paused = true)]
async fn when_the_stream_breaks_what_is_not_answered_is_not_settled_and_the_next_run_is_sent() {
    let (history, place, mut stream, mut streams) = opened().await;
    let settled = append(&history, run("bob", &["m1"])).await;
    let one = stream.runs().await;
    stream.answer(vec![stored(&one[0], 1)]).await;
    assert_eq!(seqs(&soon(settled).await.unwrap()), [1]);
    let lost = append(&history, run("bob", &["m2", "m3"])).await;
    stream.runs().await;
    place.kill();
    place.revive();
    assert_unsettled(&soon(lost).await.unwrap(), 2);
    // Given while there is no stream: it waits for the next one.
    let next = append(&history, run("bob", &["m4"])).await;
    let mut stream = soon(streams.recv()).await.unwrap();
    let runs = stream.runs().await;
    assert_eq!(
        runs.len(),
        1,
        "what was not answered must not be sent again"
    );
    stream.answer(vec![stored(&runs[0], 4)]).await;
    assert_eq!(seqs(&soon(next).await.unwrap()), [4]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_the_replica_ends_settles_what_it_answered_and_nothing_else() {
    let (history, _place, mut stream, mut streams) = opened().await;
    let (one, other) = (
        append(&history, run("bob", &["m1"])).await,
        append(&history, run("carol", &["m1"])).await,
    );
    let mut runs = Vec::new();
    while runs.len() < 2 {
        runs.extend(stream.runs().await);
    }
    stream.answer(vec![stored(&runs[1], 1)]).await;
    let draining = Err(Status::unavailable("draining"));
    stream.answers.send(draining).await.unwrap();
    assert_unsettled(&soon(one).await.unwrap(), 1);
    assert_eq!(seqs(&soon(other).await.unwrap()), [1]);
    assert!(soon(streams.recv()).await.is_some(), "it is opened again");
}

#[tokio::test(start_paused = true)]
async fn a_run_that_takes_too_long_is_not_settled_and_its_late_answer_is_only_relayed() {
    let (history, _place, mut stream, _streams) = opened().await;
    let asked = Instant::now();
    let (answer, slow) = oneshot::channel();
    let (relay, relayed) = oneshot::channel();
    let answered = OnAppended::new(1, |appended| drop(answer.send(appended)));
    let answered =
        answered.relaying(|answers, given_up| drop(relay.send((seqs(answers), given_up))));
    history.append(run("bob", &["m1"]), answered).await;
    let late = stream.runs().await;
    assert_unsettled(&soon(slow).await.unwrap(), 1);
    let waited = asked.elapsed();
    assert!(
        (RUN_TIMEOUT..=RUN_TIMEOUT + SWEEP).contains(&waited),
        "{waited:?}"
    );
    let next = append(&history, run("bob", &["m1"])).await;
    let again = stream.runs().await;
    stream
        .answer(vec![stored(&late[0], 1), stored(&again[0], 1)])
        .await;
    assert_eq!(seqs(&soon(next).await.unwrap()), [1]);
    assert_eq!(soon(relayed).await.unwrap(), (vec![1], true));
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_replica_that_cannot_be_reached() {
    let (place, mut streams) = replica("one");
    place.kill();
    let history = history(&[&place]);
    let first = append(&history, run("bob", &["m1"])).await;
    assert_unsettled(&soon(first).await.unwrap(), 1);
    // From now on that is known.
    let asked = Instant::now();
    let second = append(&history, run("bob", &["m1"])).await;
    assert_unsettled(&soon(second).await.unwrap(), 1);
    assert_eq!(asked.elapsed(), Duration::ZERO);
    // And when it is back, it is found.
    place.revive();
    let mut stream = soon(streams.recv()).await.unwrap();
    while !history.replicas_open() {
        tokio::task::yield_now().await;
    }
    let third = append(&history, run("bob", &["m1"])).await;
    let runs = stream.runs().await;
    stream.answer(vec![stored(&runs[0], 1)]).await;
    assert_eq!(seqs(&soon(third).await.unwrap()), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_run_without_room_is_not_settled_at_once() {
    let (history, _place, _stream, _streams) = opened().await;
    // Nobody reads: what is sent stays.
    let mut large = run("bob", &["m1"]);
    large.drafts[0].body = vec![0; MAX_PENDING_KIB * 1_024 / 2].into();
    let mut waiting = append(&history, large.clone()).await;
    let refused = append(&history, large).await;
    assert_unsettled(&refused.await.unwrap(), 1);
    assert!(waiting.try_recv().is_err(), "the first one waits");
}

#[tokio::test(start_paused = true)]
async fn a_refused_run_is_not_settled_and_disturbs_no_other() {
    let (history, _place, mut stream, _streams) = opened().await;
    let (bad, good) = (
        append(&history, run("bob", &["m1"])).await,
        append(&history, run("carol", &["m1"])).await,
    );
    let mut runs = Vec::new();
    while runs.len() < 2 {
        runs.extend(stream.runs().await);
    }
    let refused = wire::RunAnswer {
        r#ref: runs[0].r#ref,
        drafts: Vec::new(),
        refused: "drafts is 1; the rule is another".into(),
    };
    stream.answer(vec![refused, stored(&runs[1], 1)]).await;
    assert_unsettled(&soon(bad).await.unwrap(), 1);
    assert_eq!(seqs(&soon(good).await.unwrap()), [1]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_another_run_reaches_nobody() {
    let (history, _place, mut stream, mut streams) = opened().await;
    let to_bob = append(&history, run("bob", &["m1"])).await;
    let runs = stream.runs().await;
    let mut of_carol = runs[0].clone();
    of_carol.peer = "carol".into();
    stream.answer(vec![stored(&of_carol, 1)]).await;
    assert_unsettled(&soon(to_bob).await.unwrap(), 1);
    assert!(soon(streams.recv()).await.is_some(), "it is opened again");
}

#[tokio::test(start_paused = true)]
async fn a_conversation_keeps_its_replica_and_leaves_it_only_when_it_is_gone() {
    let (one, mut to_one) = replica("one");
    let (two, mut to_two) = replica("two");
    let history = history(&[&one, &two]);
    let mut streams = [
        soon(to_one.recv()).await.unwrap(),
        soon(to_two.recv()).await.unwrap(),
    ];
    while !history.replicas_open() {
        tokio::task::yield_now().await;
    }
    let owner = |name: &str| {
        let conversation = ConversationId::of(&user("alice"), &user(name));
        history.owner_name(&conversation)
    };
    let names: Vec<_> = (0..64).map(|number| format!("u{number}")).collect();
    let before: Vec<_> = names.iter().map(|name| owner(name)).collect();
    let of_one = before.iter().filter(|name| *name == "one").count();
    assert!((16..=48).contains(&of_one), "{of_one} of 64");
    for (name, owner) in names.iter().zip(&before) {
        let sent = append(&history, run(name, &["m"])).await;
        let stream = &mut streams[usize::from(owner == "two")];
        let runs = stream.runs().await;
        assert_eq!(runs[0].peer, *name);
        stream.answer(vec![stored(&runs[0], 1)]).await;
        assert_eq!(seqs(&soon(sent).await.unwrap()), [1]);
    }
    two.kill();
    while names.iter().any(|name| owner(name) == "two") {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    two.revive();
    assert!(soon(to_two.recv()).await.is_some());
    while !history.replicas_open() {
        tokio::task::yield_now().await;
    }
    let after: Vec<_> = names.iter().map(|name| owner(name)).collect();
    assert_eq!(before, after);
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_could_do_nothing_is_asked_after_the_others_for_a_while() {
    let (one, mut to_one) = replica("one");
    let (two, mut to_two) = replica("two");
    let history = history(&[&one, &two]);
    let mut streams = [
        soon(to_one.recv()).await.unwrap(),
        soon(to_two.recv()).await.unwrap(),
    ];
    while !history.replicas_open() {
        tokio::task::yield_now().await;
    }
    let owner = || history.owner_name(&ConversationId::of(&user("alice"), &user("bob")));
    let first = owner();
    let sent = append(&history, run("bob", &["m1"])).await;
    let stream = &mut streams[usize::from(first == "two")];
    let runs = stream.runs().await;
    let unavailable = Appended::Unsettled(Unsettled {
        reason: UnsettledReason::Unavailable,
        head: None,
        retry_after: None,
    });
    let answer = convert::write_answers(runs[0].r#ref, &[unavailable]);
    stream.answer(vec![answer]).await;
    assert_unsettled(&soon(sent).await.unwrap(), 1);
    assert_ne!(owner(), first);
    tokio::time::sleep(REPLICA_REST).await;
    assert_eq!(owner(), first);
    // Where no other is open, it is asked all the same.
    let other = if first == "one" { &two } else { &one };
    other.kill();
    while history.replicas_open() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let sent = append(&history, run("bob", &["m1"])).await;
    let stream = &mut streams[usize::from(first == "two")];
    let runs = stream.runs().await;
    stream.answer(vec![stored(&runs[0], 1)]).await;
    assert_eq!(seqs(&soon(sent).await.unwrap()), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_question_ends_in_time_and_an_answer_that_breaks_a_rule_is_none() {
    use duologue_proto::history::{ReadRequest, ReadStart};
    let (history, _place, _stream, _streams) = opened().await;
    let asked = Instant::now();
    let request = ReadRequest {
        user: user("alice"),
        peer: user("bob"),
        start: ReadStart::After(Seq::ZERO),
        max_messages: 1,
        max_bytes: 1,
    };
    let unavailable = HistoryError::Unavailable { retry_after: None };
    let failed = soon(history.read(request)).await.unwrap_err();
    assert_eq!(failed, unavailable);
    assert_eq!(asked.elapsed().as_secs(), CALL_TIMEOUT.as_secs());
    assert_eq!(soon(history.history_id()).await, Err(unavailable));
}

#[tokio::test(start_paused = true)]
async fn what_was_taken_is_answered_though_nobody_asks_any_more() {
    let (history, _place, mut stream, _streams) = opened().await;
    let answers = append(&history, run("bob", &["m1"])).await;
    drop(history);
    let runs = stream.runs().await;
    stream.answer(vec![stored(&runs[0], 1)]).await;
    assert_eq!(seqs(&soon(answers).await.unwrap()), [1]);
    // And then the stream ends.
    assert!(soon(stream.requests.message()).await.unwrap().is_none());
}
