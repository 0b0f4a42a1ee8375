//! People and their devices, and how they talk.

use std::time::Duration;

use duologue_proto::chat::v1::chat_service_client::ChatServiceClient;
use duologue_proto::chat::v1::converse_request::Frame as Up;
use duologue_proto::chat::v1::converse_response::Frame;
use duologue_proto::chat::v1::{AdvanceCursor, Body, ConverseRequest, Hello, SendMessage, body};
use duologue_runtime::task;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Streaming};

use crate::system::{NODES, System};

/// Conversations, each between two people of its own.
const CONVERSATIONS: usize = 8;
/// Messages of one burst.
const BURST: u64 = 10;
/// The length of a window.
const WINDOW: Duration = Duration::from_mins(10);
/// Between two messages that are typed.
const TYPING: Duration = Duration::from_secs(1);
/// A device puts moves of a cursor together for so long, as the Rust client does.
const CURSOR_INTERVAL: Duration = Duration::from_millis(50);

/// How the messages of a burst follow one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mix {
    /// One a second.
    Typed,
    /// None waits for the one before.
    AtOnce,
}

/// Everybody.
pub(crate) struct People {
    pairs: Vec<Pair>,
}

/// Two who talk.
struct Pair {
    one: Device,
    /// None while they are offline.
    other: Option<Device>,
    stored: u64,
}

/// One device that is connected until it is dropped. It says that it has shown what it is shown.
struct Device {
    peer: String,
    up: mpsc::Sender<ConverseRequest>,
    /// The highest own message that was answered as stored.
    stored: watch::Receiver<u64>,
    listener: JoinHandle<()>,
}

impl Drop for Device {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl People {
    /// Everybody connects; every second one talks to somebody who is offline.
    pub(crate) async fn arrive(system: &System) -> Self {
        let mut pairs = Vec::new();
        for number in 0..CONVERSATIONS {
            let names = [format!("one-{number}"), format!("other-{number}")];
            let one = Device::connect(system.client(number % NODES), &names[0], &names[1]).await;
            let other = if (number / NODES).is_multiple_of(2) {
                let other = system.client((number + 1) % NODES);
                Some(Device::connect(other, &names[1], &names[0]).await)
            } else {
                None
            };
            pairs.push(Pair {
                one,
                other,
                stored: 0,
            });
        }
        // Whoever is told of whose presence has been told.
        sleep(Duration::from_secs(10)).await;
        Self { pairs }
    }

    /// Talks for some windows. Returns how many messages were stored.
    pub(crate) async fn talk(&mut self, mix: Mix, windows: u64) -> u64 {
        for window in 0..windows {
            let end = Instant::now() + WINDOW;
            let bursts = self.pairs.iter_mut().map(|pair| pair.burst(window, mix));
            futures_util::future::join_all(bursts).await;
            sleep_until(end).await;
        }
        self.pairs.iter().map(|pair| pair.stored).sum()
    }

    /// How many sessions there are.
    pub(crate) fn sessions(&self) -> u64 {
        self.pairs
            .iter()
            .map(|pair| 1 + u64::from(pair.other.is_some()))
            .sum()
    }

    /// Everybody hangs up.
    pub(crate) async fn leave(self) {
        drop(self);
        sleep(Duration::from_secs(10)).await;
    }
}

impl Pair {
    /// Who is offline says nothing; who is online answers in every second window.
    async fn burst(&mut self, window: u64, mix: Mix) {
        let speaker = match &mut self.other {
            Some(other) if window % 2 == 1 => other,
            Some(_) | None => &mut self.one,
        };
        let known = self.stored;
        for _ in 0..BURST {
            self.stored += 1;
            speaker.say(self.stored, known).await;
            if mix == Mix::Typed {
                sleep(TYPING).await;
            }
        }
        let stored = self.stored;
        speaker.stored.wait_for(|seq| *seq == stored).await.unwrap();
    }
}

impl Device {
    async fn connect(mut chat: ChatServiceClient<Channel>, user: &str, peer: &str) -> Self {
        let (up, frames) = mpsc::channel(64);
        let mut request = Request::new(ReceiverStream::new(frames));
        let bearer = format!("Bearer {user}").parse().unwrap();
        request.metadata_mut().insert("authorization", bearer);
        let mut down = chat.converse(request).await.unwrap().into_inner();
        let hello = Hello {
            device_id: Some(format!("{user}-phone")),
            connect_number: Some(1),
            ..Default::default()
        };
        say(&up, 0, Up::Hello(hello)).await;
        while !matches!(next(&mut down).await, Some(Frame::CaughtUp(_))) {}
        let (told, stored) = watch::channel(0);
        let listener = listen(down, up.clone(), peer.to_owned(), told);
        Self {
            listener: task::spawn("device", listener),
            peer: peer.to_owned(),
            up,
            stored,
        }
    }

    /// Says a message of 100 characters.
    async fn say(&self, number: u64, after_seq: u64) {
        let text = body::Kind::Text("x".repeat(100));
        let send = SendMessage {
            peer: self.peer.clone(),
            message_id: Some(format!("0190a6c5-7d3e-7c4b-9f6a-{number:012}")),
            after_seq: Some(after_seq),
            body: Some(Body { kind: Some(text) }),
        };
        say(&self.up, number, Up::SendMessage(send)).await;
    }
}

async fn say(up: &mpsc::Sender<ConverseRequest>, reference: u64, frame: Up) {
    let request = ConverseRequest {
        r#ref: reference,
        frame: Some(frame),
    };
    up.send(request).await.unwrap();
}

async fn next(down: &mut Streaming<duologue_proto::chat::v1::ConverseResponse>) -> Option<Frame> {
    let response = down.message().await.unwrap().expect("the stream ended");
    response.frame
}

/// Says of what the peer has sent that it was shown.
async fn listen(
    mut down: Streaming<duologue_proto::chat::v1::ConverseResponse>,
    up: mpsc::Sender<ConverseRequest>,
    peer: String,
    told: watch::Sender<u64>,
) {
    let (mut shown, mut said) = (0, 0);
    loop {
        let moves = shown > said;
        tokio::select! {
            frame = next(&mut down) => match frame {
                Some(Frame::Stored(stored)) => _ = told.send_replace(stored.seq),
                Some(Frame::MessageDelivered(delivered)) => {
                    let envelope = delivered.envelope.unwrap();
                    if envelope.sender == peer {
                        shown = envelope.seq;
                    }
                }
                Some(Frame::Goodbye(goodbye)) => panic!("{goodbye:?}"),
                Some(_) | None => {}
            },
            () = sleep(CURSOR_INTERVAL), if moves => {
                said = shown;
                let advance = AdvanceCursor {
                    peer: peer.clone(),
                    delivered: Some(said),
                    read: Some(said),
                };
                say(&up, 0, Up::AdvanceCursor(advance)).await;
            }
        }
    }
}
