//! `duologue.history.v1.HistoryService`: converts, and nothing more.
//!
//! Whoever serves it must have checked that the caller is a service: the users in
//! the requests are believed.

mod append;

pub use append::ANSWERS_BYTES;

use std::pin::Pin;

use duologue_proto::history::HistoryError;
use duologue_proto::history::v1 as wire;
use duologue_proto::history::v1::history_service_server::{HistoryService, HistoryServiceServer};
use duologue_proto::limits::MAX_INTERNAL_BYTES;
use duologue_proto::wire::{InvalidField, history as convert};
use duologue_runtime::refusal::Refusal;
use duologue_runtime::refusal::services::history_refusal;
use duologue_runtime::shutdown::Shutdown;
use futures_util::Stream;
use tonic::{Request, Response, Status, Streaming};

use crate::history::History;

/// One replica's service.
#[derive(Clone)]
pub struct HistoryServer {
    history: History,
    shutdown: Shutdown,
}

impl HistoryServer {
    /// The service over a history, for a server's routes. Its streams end when the
    /// process drains.
    pub fn over(history: History, shutdown: Shutdown) -> HistoryServiceServer<Self> {
        HistoryServiceServer::new(Self { history, shutdown })
            .max_decoding_message_size(MAX_INTERNAL_BYTES)
            .max_encoding_message_size(MAX_INTERNAL_BYTES)
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl HistoryService for HistoryServer {
    type AppendStream = Pin<Box<dyn Stream<Item = Result<wire::AppendResponse, Status>> + Send>>;

    async fn get_history(
        &self,
        _: Request<wire::GetHistoryRequest>,
    ) -> Answer<wire::GetHistoryResponse> {
        let id = self.history.history_id().await.map_err(refused)?;
        Ok(Response::new(wire::GetHistoryResponse {
            history_id: id.to_string(),
        }))
    }

    async fn append(
        &self,
        requests: Request<Streaming<wire::AppendRequest>>,
    ) -> Answer<Self::AppendStream> {
        if *self.history.refusing().borrow() {
            return Err(append::refusing());
        }
        let (history, shutdown) = (self.history.clone(), self.shutdown.clone());
        let answers = append::stream(history, shutdown, requests.into_inner());
        Ok(Response::new(Box::pin(answers)))
    }

    async fn read(&self, request: Request<wire::ReadRequest>) -> Answer<wire::ReadResponse> {
        let asked = convert::read_read(request.get_ref()).map_err(at_fault)?;
        let page = self.history.read(asked).await.map_err(refused)?;
        Ok(Response::new(convert::write_read_page(&page)))
    }

    async fn sync(&self, request: Request<wire::SyncRequest>) -> Answer<wire::SyncResponse> {
        let asked = convert::read_sync(request.into_inner()).map_err(at_fault)?;
        let page = self.history.sync(asked).await.map_err(refused)?;
        Ok(Response::new(convert::write_sync_page(&page)))
    }

    async fn advance_cursor(
        &self,
        request: Request<wire::AdvanceCursorRequest>,
    ) -> Answer<wire::AdvanceCursorResponse> {
        let (user, peer, asked) = convert::read_advance(request.get_ref()).map_err(at_fault)?;
        let advanced = self.history.advance_cursor(&user, &peer, asked).await;
        let advanced = advanced.map_err(refused)?;
        Ok(Response::new(convert::write_advanced(advanced)))
    }

    async fn list_messages(
        &self,
        request: Request<wire::ListMessagesRequest>,
    ) -> Answer<wire::ListMessagesResponse> {
        let asked = convert::read_list_messages(request.into_inner()).map_err(at_fault)?;
        let page = self.history.list_messages(asked).await.map_err(refused)?;
        Ok(Response::new(convert::write_messages(&page)))
    }

    async fn list_conversations(
        &self,
        request: Request<wire::ListConversationsRequest>,
    ) -> Answer<wire::ListConversationsResponse> {
        let asked = convert::read_list_conversations(request.into_inner()).map_err(at_fault)?;
        let page = self.history.list_conversations(asked).await;
        let page = page.map_err(refused)?;
        Ok(Response::new(convert::write_conversations(&page)))
    }

    async fn list_peers(
        &self,
        request: Request<wire::ListPeersRequest>,
    ) -> Answer<wire::ListPeersResponse> {
        let (user, after, max) = convert::read_list_peers(request.get_ref()).map_err(at_fault)?;
        let peers = self.history.peers(&user, after.as_ref(), max).await;
        Ok(Response::new(convert::write_peers(
            &peers.map_err(refused)?,
        )))
    }

    async fn share_conversation(
        &self,
        request: Request<wire::ShareConversationRequest>,
    ) -> Answer<wire::ShareConversationResponse> {
        let (user, peer) = convert::read_share(request.get_ref()).map_err(at_fault)?;
        let shared = self.history.share_conversation(&user, &peer).await;
        Ok(Response::new(wire::ShareConversationResponse {
            shared: shared.map_err(refused)?,
        }))
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "it is passed to map_err by name"
)]
fn refused(error: HistoryError) -> Status {
    history_refusal(&error).into_status()
}

fn at_fault(fault: InvalidField) -> Status {
    Refusal::from(fault).into_status()
}
