//! A chat service that does what the user's name says.

use std::pin::Pin;

use duologue_proto::chat::v1 as wire;
use duologue_proto::chat::v1::chat_service_server::ChatService;
use duologue_runtime::auth::Identity;
use duologue_runtime::refusal::{Reason, Refusal};
use futures_util::{Stream, StreamExt as _, stream};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};

type Frames = Pin<Box<dyn Stream<Item = Result<wire::ConverseResponse, Status>> + Send>>;
type Events = Pin<Box<dyn Stream<Item = Result<wire::SubscribeResponse, Status>> + Send>>;

/// Tells of every stream that is dropped.
pub(crate) struct Stub(pub(crate) mpsc::UnboundedSender<()>);

/// Tells when it goes.
struct Held(mpsc::UnboundedSender<()>);

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

pub(crate) fn refused() -> Status {
    Refusal::new(Reason::SessionFull, "sync again: \u{e4}\u{f6}\u{fc}, line\nand more").into_status()
}

fn user<T>(request: &Request<T>) -> String {
    request.extensions().get::<Identity>().unwrap().user.to_string()
}

#[tonic::async_trait]
impl ChatService for Stub {
    type ConverseStream = Frames;
    type SubscribeStream = Events;

    /// Says as much as it hears.
    async fn converse(
        &self,
        request: Request<Streaming<wire::ConverseRequest>>,
    ) -> Result<Response<Frames>, Status> {
        let heard = request.into_inner();
        let said = heard.map(|heard| heard.map(|_| wire::ConverseResponse::default()));
        Ok(Response::new(Box::pin(said)))
    }

    async fn subscribe(
        &self,
        request: Request<wire::SubscribeRequest>,
    ) -> Result<Response<Events>, Status> {
        let frame = |_| {
            let frame = wire::subscribe_response::Frame::Heartbeat(wire::Heartbeat::default());
            Ok(wire::SubscribeResponse { frame: Some(frame) })
        };
        let three = stream::iter(0..3).map(frame);
        let events: Events = match user(&request).as_str() {
            "refused" => return Err(refused()),
            "failing" => Box::pin(three.chain(stream::iter([Err(refused())]))),
            "endless" => {
                let held = Held(self.0.clone());
                let rest = stream::pending().map(move |never| {
                    let _ = &held;
                    never
                });
                Box::pin(three.chain(rest))
            }
            _ => Box::pin(three),
        };
        Ok(Response::new(events))
    }

    /// Names the user, and the text.
    async fn send_message(
        &self,
        request: Request<wire::SendMessageRequest>,
    ) -> Result<Response<wire::SendMessageResponse>, Status> {
        if request.get_ref().peer == "refused" {
            return Err(refused());
        }
        let user = user(&request);
        Ok(Response::new(wire::SendMessageResponse {
            message_id: format!("{user}-to-{}", request.get_ref().peer),
            ..Default::default()
        }))
    }

    async fn advance_cursor(
        &self,
        _: Request<wire::AdvanceCursorRequest>,
    ) -> Result<Response<wire::AdvanceCursorResponse>, Status> {
        Err(refused())
    }

    async fn list_messages(
        &self,
        _: Request<wire::ListMessagesRequest>,
    ) -> Result<Response<wire::ListMessagesResponse>, Status> {
        Err(refused())
    }

    async fn list_conversations(
        &self,
        _: Request<wire::ListConversationsRequest>,
    ) -> Result<Response<wire::ListConversationsResponse>, Status> {
        Err(refused())
    }

    async fn list_users(
        &self,
        _: Request<wire::ListUsersRequest>,
    ) -> Result<Response<wire::ListUsersResponse>, Status> {
        Err(refused())
    }

    async fn get_presence(
        &self,
        _: Request<wire::GetPresenceRequest>,
    ) -> Result<Response<wire::GetPresenceResponse>, Status> {
        Err(refused())
    }
}
