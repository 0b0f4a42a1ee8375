//! One stream, by either door.

use std::time::Duration;

use duologue_proto::chat::v1::converse_request::Frame as Up;
use duologue_proto::chat::v1::converse_response::Frame;
use duologue_proto::chat::v1::subscribe_response::Frame as SubscribeFrame;
use duologue_proto::chat::v1::{
    ConverseRequest, ConverseResponse, Envelope, Goodbye, Hello, SubscribeRequest,
    SubscribeResponse, Welcome,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{Chat, soon};

/// Frames up that may wait for the connection.
const FRAMES: usize = 1_024;

/// Heartbeats of one stream, after which what a test waits for does not happen.
const MAX_HEARTBEATS: u32 = 3;

/// How a stream ended: what came before, and the status.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) frames: Vec<ConverseResponse>,
    pub(crate) status: Result<(), Status>,
}

impl End {
    /// The goodbye, which must be the last frame.
    pub(crate) fn goodbye(&self) -> &Goodbye {
        match self.frames.last().map(|frame| &frame.frame) {
            Some(Some(Frame::Goodbye(goodbye))) => goodbye,
            last => panic!("the last frame is {last:?}, then {:?}", self.status),
        }
    }

    /// The status, which must be a failure.
    pub(crate) fn status(&self) -> &Status {
        self.status.as_ref().expect_err("the stream ended with OK")
    }
}

/// A `Converse` stream.
pub(crate) struct Session {
    up: Option<mpsc::Sender<ConverseRequest>>,
    down: Streaming<ConverseResponse>,
    heartbeats: u32,
    /// Of a session that is open.
    pub(crate) welcome: Welcome,
}

impl Session {
    /// A stream on which nothing was said.
    pub(crate) async fn connect(chat: &Chat) -> Self {
        let (up, frames) = mpsc::channel(FRAMES);
        let mut chat = chat.clone();
        // That it returns shows that headers come before hello.
        let down = soon(chat.converse(ReceiverStream::new(frames)))
            .await
            .unwrap()
            .into_inner();
        Self {
            up: Some(up),
            down,
            heartbeats: 0,
            welcome: Welcome::default(),
        }
    }

    /// A session that is welcome.
    pub(crate) async fn open(chat: &Chat, hello: Hello) -> Self {
        let mut session = Self::connect(chat).await;
        session.say(0, Up::Hello(hello)).await;
        match session.hear().await.frame {
            Some(Frame::Welcome(welcome)) => session.welcome = welcome,
            other => panic!("{other:?} before the welcome"),
        }
        session
    }

    /// A session that has caught up; also what it was shown, and its sync token.
    pub(crate) async fn caught_up(chat: &Chat, hello: Hello) -> (Self, Vec<Envelope>, String) {
        let mut session = Self::open(chat, hello).await;
        let (shown, token) = session.catch_up().await;
        (session, shown, token)
    }

    /// How a stream ends that begins with this frame.
    pub(crate) async fn end_of(chat: &Chat, first: Up) -> End {
        let mut session = Self::connect(chat).await;
        session.say(0, first).await;
        session.end().await
    }

    /// Says something.
    pub(crate) async fn say(&self, reference: u64, frame: Up) {
        self.say_raw(ConverseRequest {
            r#ref: reference,
            frame: Some(frame),
        })
        .await;
    }

    /// Says anything.
    pub(crate) async fn say_raw(&self, request: ConverseRequest) {
        let up = self.up.as_ref().expect("the stream is half-closed");
        // The server may have ended the stream: that is seen by who hears.
        let _ = soon(up.send(request)).await;
    }

    /// Says something if it is taken within a moment.
    pub(crate) async fn try_say(&self, reference: u64, frame: Up) -> bool {
        /// Far longer than a frame takes that is taken at all.
        const MOMENT: Duration = Duration::from_secs(2);
        let up = self.up.as_ref().expect("the stream is half-closed");
        let request = ConverseRequest {
            r#ref: reference,
            frame: Some(frame),
        };
        let said = tokio::time::timeout(MOMENT, up.send(request)).await;
        said.is_ok_and(|taken| {
            taken.expect("the stream has ended");
            true
        })
    }

    /// Half-closes: nothing more will be said.
    pub(crate) fn finish(&mut self) {
        self.up = None;
    }

    /// The next frame.
    pub(crate) async fn hear(&mut self) -> ConverseResponse {
        loop {
            let frame = soon(self.down.message()).await;
            let frame = frame.unwrap().expect("the stream ended");
            if !is_heartbeat(&frame) {
                return frame;
            }
            self.heartbeats += 1;
            assert!(self.heartbeats < MAX_HEARTBEATS, "nothing but heartbeats");
        }
    }

    /// The answer to one question.
    pub(crate) async fn ask(&mut self, reference: u64, frame: Up) -> Frame {
        self.say(reference, frame).await;
        self.answer(reference).await
    }

    /// The answer to the question with this number.
    pub(crate) async fn answer(&mut self, reference: u64) -> Frame {
        loop {
            let heard = self.hear().await;
            if heard.r#ref == reference {
                return heard.frame.unwrap();
            }
        }
    }

    /// Whether a question is answered, and not by goodbye.
    pub(crate) async fn is_answered(&mut self, reference: u64, frame: Up) -> bool {
        self.say(reference, frame).await;
        loop {
            let heard = self.hear().await;
            if heard.r#ref == reference {
                return true;
            }
            if matches!(heard.frame, Some(Frame::Goodbye(_))) {
                return false;
            }
        }
    }

    /// The next answer to anything.
    pub(crate) async fn answer_any(&mut self) -> Frame {
        loop {
            let heard = self.hear().await;
            if heard.r#ref > 0 {
                return heard.frame.unwrap();
            }
        }
    }

    /// Skips frames until one is what is looked for.
    pub(crate) async fn until<T>(&mut self, mut pick: impl FnMut(Frame) -> Option<T>) -> T {
        loop {
            if let Some(found) = self.hear().await.frame.and_then(&mut pick) {
                return found;
            }
        }
    }

    /// What is shown until everything has been, and the sync token.
    pub(crate) async fn catch_up(&mut self) -> (Vec<Envelope>, String) {
        let mut shown = Vec::new();
        let token = self
            .until(|frame| match frame {
                Frame::MessageDelivered(delivered) => {
                    shown.extend(delivered.envelope);
                    None
                }
                Frame::CaughtUp(caught_up) => Some(caught_up.sync_token),
                _ => None,
            })
            .await;
        (shown, token)
    }

    /// The next messages that are shown.
    pub(crate) async fn messages(&mut self, count: usize) -> Vec<Envelope> {
        let mut shown = Vec::new();
        while shown.len() < count {
            shown.push(self.until(delivered).await);
        }
        shown
    }

    /// Everything until the end, and the end.
    pub(crate) async fn end(&mut self) -> End {
        let mut frames = Vec::new();
        let status = loop {
            match soon(self.down.message()).await {
                Ok(Some(frame)) => {
                    self.heartbeats += u32::from(is_heartbeat(&frame));
                    assert!(self.heartbeats < MAX_HEARTBEATS, "nothing but heartbeats");
                    frames.push(frame);
                }
                Ok(None) => break Ok(()),
                Err(status) => break Err(status),
            }
        };
        End { frames, status }
    }
}

fn is_heartbeat(response: &ConverseResponse) -> bool {
    matches!(response.frame, Some(Frame::Heartbeat(_)))
}

/// The message in a frame, if there is one.
pub(crate) fn delivered(frame: Frame) -> Option<Envelope> {
    match frame {
        Frame::MessageDelivered(delivered) => delivered.envelope,
        _ => None,
    }
}

/// A `Subscribe` stream.
pub(crate) struct Watch(Streaming<SubscribeResponse>);

impl Watch {
    /// A subscription that was accepted.
    pub(crate) async fn open(chat: &Chat, hello: Hello) -> Self {
        let request = subscribe(hello);
        let mut chat = chat.clone();
        Self(soon(chat.subscribe(request)).await.unwrap().into_inner())
    }

    /// Skips frames until one is what is looked for.
    pub(crate) async fn until<T>(
        &mut self,
        mut pick: impl FnMut(SubscribeFrame) -> Option<T>,
    ) -> T {
        loop {
            let frame = soon(self.0.message()).await.unwrap();
            let frame = frame.expect("the stream ended").frame;
            if let Some(found) = frame.and_then(&mut pick) {
                return found;
            }
        }
    }

    /// Waits until everything has been shown.
    pub(crate) async fn caught_up(&mut self) {
        let caught_up = |frame| matches!(frame, SubscribeFrame::CaughtUp(_)).then_some(());
        self.until(caught_up).await;
    }

    /// The next message.
    pub(crate) async fn message(&mut self) -> Envelope {
        self.until(|frame| match frame {
            SubscribeFrame::MessageDelivered(delivered) => delivered.envelope,
            _ => None,
        })
        .await
    }

    /// The status of a stream that the server ends.
    pub(crate) async fn end(&mut self) -> (Vec<SubscribeResponse>, Result<(), Status>) {
        let mut frames = Vec::new();
        loop {
            match soon(self.0.message()).await {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => return (frames, Ok(())),
                Err(status) => return (frames, Err(status)),
            }
        }
    }
}

/// What `Subscribe` is asked with the fields of a `Hello`.
pub(crate) fn subscribe(hello: Hello) -> SubscribeRequest {
    SubscribeRequest {
        device_id: hello.device_id,
        connect_number: hello.connect_number,
        history_id: hello.history_id,
        sync_token: hello.sync_token,
        positions: hello.positions,
        cursors: hello.cursors,
        client_name: hello.client_name,
        client_version: hello.client_version,
        features: hello.features,
    }
}
