//! The messages of one conversation, in both directions.

use duologue_proto::history::{HistoryError, ListMessages, MessagesPage};
use duologue_proto::ids::{ConversationId, Seq};
use duologue_proto::limits::{MAX_MESSAGES_PAGE, MAX_PAGE_BYTES};
use duologue_proto::message::Envelope;

use crate::error::unavailable;
use crate::history::{History, Shared};
use crate::store::{Consistency, SlotRange, StoreError};
use crate::tokens::{self, Fields, Payload, Purpose};

impl History {
    /// Lists messages for a person to read. A page token goes on from the last
    /// message shown, so that messages that arrive meanwhile disturb nothing.
    pub async fn list_messages(&self, request: ListMessages) -> Result<MessagesPage, HistoryError> {
        let query = Query::of(self, &request);
        let shown = query.open(&request.page_token)?;
        let asked = self.ask(|shared| async move { shared.messages(&request, shown).await });
        let (messages, end, head) = asked.await.map_err(unavailable)?;
        let next_page_token = match messages.last() {
            Some(message) if Some(message.seq) != end => query.token(message.seq),
            _ => String::new(),
        };
        Ok(MessagesPage {
            messages,
            next_page_token,
            head,
        })
    }
}

impl Shared {
    /// Messages after what is shown, where they end, and the head.
    async fn messages(
        &self,
        request: &ListMessages,
        shown: Option<Seq>,
    ) -> Result<(Vec<Envelope>, Option<Seq>, Seq), StoreError> {
        let conversation = ConversationId::of(&request.user, &request.peer);
        let head = self.store.head(&conversation).await?;
        let head = head.map_or(Seq::ZERO, |message| message.envelope.seq);
        let Some((first, last)) = wanted(request, shown, head) else {
            return Ok((Vec::new(), None, head));
        };
        let range = SlotRange {
            conversation,
            first,
            last,
            backward: !request.forward,
            max_messages: request.page_size.clamp(1, MAX_MESSAGES_PAGE),
            max_bytes: MAX_PAGE_BYTES,
            consistency: Consistency::Strong,
        };
        let messages = self.some_slots(range).await?;
        let messages = messages.into_iter().map(|message| message.envelope);
        let end = if request.forward { last } else { first };
        Ok((messages.collect(), Some(end), head))
    }
}

/// What is left of the range asked for; none if that is nothing.
fn wanted(request: &ListMessages, shown: Option<Seq>, head: Seq) -> Option<(Seq, Seq)> {
    let mut first = request.after_seq.unwrap_or_default().next();
    let mut last = request.before_seq.map_or(head, |end| head.min(before(end)));
    match shown {
        Some(seq) if request.forward => first = first.max(seq.next()),
        Some(seq) => last = last.min(before(seq)),
        None => {}
    }
    (first <= last).then_some((first, last))
}

fn before(seq: Seq) -> Seq {
    Seq(seq.0.saturating_sub(1))
}

/// Everything that a page token is bound to.
struct Query(Vec<Vec<u8>>);

impl Query {
    fn of(history: &History, request: &ListMessages) -> Self {
        let bound = |seq: Option<Seq>| seq.map_or(Vec::new(), |seq| seq.0.to_be_bytes().to_vec());
        Self(vec![
            history.shared.store.history_id().as_str().into(),
            request.user.as_str().into(),
            request.peer.as_str().into(),
            vec![u8::from(request.forward)],
            bound(request.after_seq),
            bound(request.before_seq),
        ])
    }

    fn parts(&self) -> Vec<&[u8]> {
        self.0.iter().map(Vec::as_slice).collect()
    }

    fn token(&self, shown: Seq) -> String {
        let payload = Payload::default().number(shown.0);
        tokens::seal(Purpose::Messages, &self.parts(), &payload)
    }

    fn open(&self, token: &str) -> Result<Option<Seq>, HistoryError> {
        if token.is_empty() {
            return Ok(None);
        }
        let shown = tokens::open(Purpose::Messages, &self.parts(), token)
            .and_then(|payload| Fields(&payload).number());
        shown
            .map(|seq| Some(Seq(seq)))
            .ok_or(HistoryError::InvalidPageToken)
    }
}
