//! What every engine promises, as one suite that runs over each of them.
//!
//! `contract!` makes one test per promise; an engine says only how a store is made. Two
//! promises only an engine with one writer can give.

mod puts;
mod reads;
pub(crate) mod remote;
mod rows;

use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use duologue_proto::ids::{ConversationId, MessageId, Seq, UnixMillis, UserId};
use duologue_proto::message::Envelope;
use duologue_runtime::clock::{Clock as _, ManualClock};

use crate::store::{
    ActivityRows, Consistency, PutOutcome, PutRun, PutStop, SlotRange, Store, StoredMessage, Window,
};

/// When the clocks of these tests start.
pub(crate) const START: UnixMillis = UnixMillis(1_800_000_000_000);

/// A fresh store with the clock that it goes by.
pub(crate) struct Fixture {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: ManualClock,
    /// Where it is, if it is anywhere.
    pub(crate) _directory: Option<tempfile::TempDir>,
}

/// Makes a module of tests over the fixtures that `$make` makes: each promise over each
/// of them. `$attributes` are those of the tests.
macro_rules! contract {
    ($attributes:tt, $make:path, $module:ident: $($promise:ident)*) => {
        $(
            attributed! {
                $attributes
                async fn $promise() {
                    for fixture in $make().await {
                        $module::$promise(fixture).await;
                    }
                }
            }
        )*
    };
    ($engine:ident, $attributes:tt, $make:path) => {
        mod $engine {
            use super::*;

            contract! { $attributes, $make, puts:
                a_stored_message_is_read_back_as_it_was
                an_occupied_slot_answers_with_its_holder_and_changes_nothing
                a_put_that_is_tried_again_meets_itself
                a_run_that_is_tried_again_in_other_pieces_meets_itself
                an_occupied_slot_amid_a_stored_run_answers_with_its_holder
                runs_put_at_once_are_stored_as_one_by_one
                a_run_is_stored_up_to_a_slot_that_another_writer_filled
                a_run_that_is_none_is_refused_and_changes_nothing
                of_many_writers_of_one_slot_exactly_one_wins
                racing_runs_leave_no_gap_and_no_lie
                a_put_long_after_its_reading_changes_nothing
            }

            contract! { $attributes, $make, rows:
                rows_are_there_for_both_users
                a_conversation_with_oneself_has_one_row
                rows_are_there_even_if_no_slot_was_filled
                rows_known_to_be_durable_are_not_written_again
                cursors_never_retreat
                a_cursor_marks_its_conversation_active
                a_conversation_that_is_new_keeps_its_cursors
                a_stranger_has_no_cursor
                the_highest_reading_never_falls
            }

            contract! { $attributes, $make, reads:
                conversations_are_listed_in_order_and_in_pages
                activity_is_paged_forward_in_order
                activity_is_paged_backward_in_order
                slots_are_read_in_both_directions_within_their_bounds
                a_page_of_slots_is_bounded_but_never_empty
                every_range_is_exact_however_its_messages_were_stored
                a_page_of_long_and_short_messages_ends_at_the_byte
                a_read_that_may_lag_is_an_unbroken_run
                users_whose_ids_begin_alike_are_kept_apart
            }
        }
    };
    (one_writer $engine:ident, $attributes:tt, $make:path) => {
        mod $engine {
            use super::*;

            contract! { $attributes, $make, puts:
                a_slot_after_an_absent_one_is_refused
                a_caller_that_goes_away_changes_nothing
            }
        }
    };
}

macro_rules! attributed {
    ({ $($attributes:tt)* } $test:item) => { $($attributes)* $test };
}

contract!(memory, { #[tokio::test(flavor = "multi_thread", worker_threads = 2)] }, make_memory);
contract!(
    one_writer memory_only,
    { #[tokio::test(flavor = "multi_thread", worker_threads = 2)] },
    make_memory
);
contract!(embedded, { #[tokio::test(flavor = "multi_thread", worker_threads = 2)] }, make_embedded);
contract!(
    one_writer embedded_only,
    { #[tokio::test(flavor = "multi_thread", worker_threads = 2)] },
    make_embedded
);
contract!(dynamodb, { #[tokio::test(start_paused = true)] }, remote::make);
contract!(dynamodb_with_faults, { #[tokio::test(start_paused = true)] }, remote::make_faulty);
contract!(
    dynamodb_elsewhere,
    {
        #[tokio::test]
        #[ignore = "needs a DynamoDB that the environment names, as AWS_ENDPOINT_URL_DYNAMODB"]
    },
    remote::make_elsewhere
);

fn make_memory() -> Ready<[Fixture; 1]> {
    use duologue_runtime::clock::SeededRandom;

    let clock = ManualClock::at(START);
    let store = crate::memory::MemoryStore::new(Arc::new(clock.clone()), &SeededRandom::new(1));
    ready([Fixture {
        store: Arc::new(store),
        clock,
        _directory: None,
    }])
}

fn make_embedded() -> Ready<[Fixture; 1]> {
    use duologue_runtime::clock::SeededRandom;

    let clock = ManualClock::at(START);
    let directory = tempfile::tempdir().unwrap();
    let store = crate::embedded::EmbeddedStore::open(
        directory.path(),
        Arc::new(clock.clone()),
        &SeededRandom::new(1),
    );
    ready([Fixture {
        store: Arc::new(store.unwrap()),
        clock,
        _directory: Some(directory),
    }])
}

pub(crate) fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

pub(crate) fn between(one: &str, other: &str) -> ConversationId {
    ConversationId::of(&user(one), &user(other))
}

/// A message of the user who sorts first.
pub(crate) fn message(conversation: &ConversationId, seq: u64, id: &str) -> StoredMessage {
    sealed(conversation, seq, id, format!("body of {id}").as_bytes())
}

/// The same with a body of so many bytes.
pub(crate) fn sized_message(
    conversation: &ConversationId,
    seq: u64,
    bytes: usize,
) -> StoredMessage {
    sealed(conversation, seq, &format!("m{seq}"), &vec![b'.'; bytes])
}

fn sealed(conversation: &ConversationId, seq: u64, id: &str, body: &[u8]) -> StoredMessage {
    StoredMessage {
        envelope: Envelope::seal(
            Seq(seq),
            MessageId::parse(id).unwrap(),
            conversation.low().clone(),
            conversation.high().clone(),
            START,
            body,
        ),
        sent: [seq, 0],
    }
}

pub(crate) fn run_at(read_at: UnixMillis, messages: Vec<StoredMessage>) -> PutRun {
    PutRun {
        conversation: messages[0].envelope.conversation(),
        rows: ActivityRows {
            window: Window::of(read_at),
            write: true,
            new_conversation: messages[0].envelope.seq == Seq(1),
        },
        messages,
        read_at,
    }
}

pub(crate) fn stored(count: usize) -> PutOutcome {
    PutOutcome {
        stored: count,
        stopped: None,
    }
}

fn stopped(count: usize, stop: PutStop) -> PutOutcome {
    PutOutcome {
        stored: count,
        stopped: Some(stop),
    }
}

pub(crate) fn all(conversation: &ConversationId) -> SlotRange {
    SlotRange {
        conversation: conversation.clone(),
        first: Seq(1),
        last: Seq(u64::MAX),
        backward: false,
        max_messages: usize::MAX,
        max_bytes: usize::MAX,
        consistency: Consistency::Strong,
    }
}

/// Polls a future once: whether it waits.
pub(crate) async fn waits<F: Future>(mut future: Pin<&mut F>) -> bool {
    std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_pending())).await
}

impl Fixture {
    async fn put(&self, messages: Vec<StoredMessage>) -> PutOutcome {
        self.store.put_run(run_at(self.clock.now(), messages)).await
    }

    /// Fills the next `count` slots from `first` on.
    async fn fill(&self, conversation: &ConversationId, first: u64, count: u64) {
        let messages =
            (first..first + count).map(|seq| message(conversation, seq, &format!("m{seq}")));
        let outcome = self.put(messages.collect()).await;
        assert_eq!(outcome, stored(usize::try_from(count).unwrap()));
    }

    async fn activity(&self, name: &str) -> Vec<(Window, String)> {
        let rows = self
            .store
            .activity_from(&user(name), Window(0), None, 100)
            .await;
        let rows = rows.unwrap().into_iter();
        rows.map(|row| (row.window, row.peer.to_string())).collect()
    }

    async fn peers(&self, name: &str) -> Vec<String> {
        let peers = self
            .store
            .conversations(&user(name), None, 100)
            .await
            .unwrap();
        peers.iter().map(UserId::to_string).collect()
    }

    async fn seqs(&self, range: SlotRange) -> Vec<u64> {
        let messages = self.store.slots(range).await.unwrap();
        messages
            .iter()
            .map(|message| message.envelope.seq.0)
            .collect()
    }
}
