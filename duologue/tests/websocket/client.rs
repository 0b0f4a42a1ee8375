//! A WebSocket client: the handshake by hand, the frames by a library of others.

use std::time::Duration;

use duologue_proto::chat::v1::converse_request::Frame as Up;
use duologue_proto::chat::v1::converse_response::Frame;
use duologue_proto::chat::v1::{
    AdvanceCursor, Body, ConverseRequest, ConverseResponse, Hello, SendMessage, Stored, body,
};
use futures_util::{SinkExt as _, StreamExt as _};
use prost::Message as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::system::System;

pub(crate) const PROTO: &str = "duologue.v1.proto";
pub(crate) const JSON: &str = "duologue.v1.json";

/// Within this everything happens that should; a busy machine is slow.
const SOON: Duration = Duration::from_secs(30);

pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    let awaited = tokio::time::timeout(SOON, what).await;
    awaited.expect("what was awaited did not happen")
}

impl System {
    /// Asks for an upgrade; returns the connection and the head of the answer.
    pub(crate) async fn ask(&self, path: &str, headers: &[(&str, &str)]) -> (TcpStream, String) {
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        let mut request = format!(
            "GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
            self.addr
        );
        for (name, value) in headers {
            for part in [name, ": ", value, "\r\n"] {
                request.push_str(part);
            }
        }
        request.push_str("\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(soon(stream.read_u8()).await.unwrap());
        }
        (stream, String::from_utf8(head).unwrap())
    }

    /// A connection that was upgraded.
    pub(crate) async fn raw(&self, protocol: &str) -> TcpStream {
        let offer = [("sec-websocket-protocol", protocol)];
        let (stream, head) = self.ask("/ws", &offer).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
        assert!(
            head.contains(&format!("sec-websocket-protocol: {protocol}\r\n")),
            "{head}"
        );
        stream
    }

    /// A client of which nothing is known.
    pub(crate) async fn connect(&self, protocol: &'static str) -> Client {
        let stream = self.raw(protocol).await;
        Client {
            socket: WebSocketStream::from_raw_socket(stream, Role::Client, None).await,
            protocol,
        }
    }

    /// A session that has caught up, and its sync token.
    pub(crate) async fn open(&self, protocol: &'static str, user: &str) -> (Client, String) {
        let hello = Hello {
            access_token: user.to_owned(),
            ..Hello::default()
        };
        self.open_with(protocol, hello).await
    }

    pub(crate) async fn open_with(&self, protocol: &'static str, hello: Hello) -> (Client, String) {
        let mut client = self.connect(protocol).await;
        client.say(1, Up::Hello(hello)).await;
        let token = client
            .until(|frame| match frame {
                Frame::CaughtUp(caught_up) => Some(caught_up.sync_token),
                _ => None,
            })
            .await;
        (client, token)
    }
}

pub(crate) struct Client {
    socket: WebSocketStream<TcpStream>,
    protocol: &'static str,
}

impl Client {
    pub(crate) async fn send(&mut self, message: Message) {
        soon(self.socket.send(message)).await.unwrap();
    }

    pub(crate) async fn text(&mut self, json: &Value) {
        self.send(Message::text(json.to_string())).await;
    }

    /// Says a frame in the client's subprotocol.
    pub(crate) async fn say(&mut self, reference: u64, frame: Up) {
        if self.protocol == JSON {
            let mut json = as_json(frame);
            json["ref"] = json!(reference);
            return self.text(&json).await;
        }
        let request = ConverseRequest {
            r#ref: reference,
            frame: Some(frame),
        };
        self.send(Message::binary(request.encode_to_vec())).await;
    }

    /// The next message as it is, pings left out.
    pub(crate) async fn message(&mut self) -> Message {
        loop {
            match soon(self.socket.next()).await.unwrap().unwrap() {
                Message::Ping(_) | Message::Pong(_) => {}
                message => return message,
            }
        }
    }

    /// The next message; none once the connection has ended.
    pub(crate) async fn try_message(&mut self) -> Option<Message> {
        soon(self.socket.next()).await?.ok()
    }

    /// The next text, as JSON.
    pub(crate) async fn heard_json(&mut self) -> Value {
        match self.message().await {
            Message::Text(text) => serde_json::from_str(&text).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn hear(&mut self) -> ConverseResponse {
        if self.protocol == JSON {
            return from_json(&self.heard_json().await);
        }
        match self.message().await {
            Message::Binary(bytes) => ConverseResponse::decode(bytes).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// What the first frame that matters says.
    pub(crate) async fn until<T>(&mut self, matters: impl Fn(Frame) -> Option<T>) -> T {
        loop {
            let frame = self.hear().await.frame.and_then(&matters);
            if let Some(found) = frame {
                return found;
            }
        }
    }

    /// Sends a text and waits until it is stored.
    pub(crate) async fn store(&mut self, peer: &str, id: &str, text: &str) -> Stored {
        self.say(7, send(peer, id, text)).await;
        self.until(|frame| match frame {
            Frame::Stored(stored) => Some(stored),
            _ => None,
        })
        .await
    }

    /// The sequence and text of the next message that is delivered.
    pub(crate) async fn delivered(&mut self) -> (u64, String) {
        self.until(|frame| match frame {
            Frame::MessageDelivered(delivered) => {
                let envelope = delivered.envelope?;
                let body::Kind::Text(text) = envelope.body?.kind?;
                Some((envelope.seq, text))
            }
            _ => None,
        })
        .await
    }

    /// How the connection ends, whatever comes before.
    pub(crate) async fn closed(&mut self) -> (u16, String) {
        loop {
            if let Message::Close(Some(frame)) = self.message().await {
                return (frame.code.into(), frame.reason.as_str().to_owned());
            }
        }
    }

    pub(crate) async fn close(&mut self) {
        soon(self.socket.close(None)).await.unwrap();
    }
}

pub(crate) fn send(peer: &str, id: &str, text: &str) -> Up {
    Up::SendMessage(SendMessage {
        peer: peer.to_owned(),
        message_id: Some(id.to_owned()),
        after_seq: Some(0),
        body: Some(Body {
            kind: Some(body::Kind::Text(text.to_owned())),
        }),
    })
}

pub(crate) fn advance(peer: &str, seq: u64) -> Up {
    Up::AdvanceCursor(AdvanceCursor {
        peer: peer.to_owned(),
        delivered: None,
        read: Some(seq),
    })
}

/// JSON as a person would write it, and not by the code that reads it.
fn as_json(frame: Up) -> Value {
    match frame {
        Up::Hello(hello) => {
            let positions = hello.positions.iter();
            let positions: Vec<_> = positions
                .map(|position| json!({"peer": position.peer, "seq": position.seq.to_string()}))
                .collect();
            json!({"hello": {
                "deviceId": hello.device_id,
                "connectNumber": hello.connect_number,
                "historyId": hello.history_id,
                "syncToken": hello.sync_token,
                "accessToken": hello.access_token,
                "positions": positions,
            }})
        }
        Up::SendMessage(send) => {
            let Some(body::Kind::Text(text)) = send.body.unwrap().kind else {
                panic!("no text");
            };
            json!({"sendMessage": {
                "peer": send.peer,
                "messageId": send.message_id,
                "afterSeq": send.after_seq,
                "body": {"text": text},
            }})
        }
        Up::AdvanceCursor(advance) => {
            json!({"advanceCursor": {"peer": advance.peer, "read": advance.read}})
        }
        Up::Abandon(abandon) => json!({"abandon": {"messageId": abandon.message_id}}),
        Up::Ping(_) => json!({"ping": {}}),
    }
}

/// The kinds that these tests look at; others have no frame.
fn from_json(json: &Value) -> ConverseResponse {
    use duologue_proto::chat::v1 as wire;

    let number = |value: &Value| {
        value
            .as_str()
            .map_or(0, |text| text.parse::<u64>().unwrap())
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let frame = json.as_object().unwrap().iter().find_map(|(name, said)| {
        Some(match name.as_str() {
            "caughtUp" => Frame::CaughtUp(wire::CaughtUp {
                sync_token: text(&said["syncToken"]),
            }),
            "stored" => Frame::Stored(Stored {
                message_id: text(&said["messageId"]),
                peer: text(&said["peer"]),
                seq: number(&said["seq"]),
                duplicate: said["duplicate"] == true,
                accepted_at: None,
            }),
            "messageDelivered" => Frame::MessageDelivered(wire::MessageDelivered {
                envelope: Some(wire::Envelope {
                    seq: number(&said["envelope"]["seq"]),
                    body: Some(Body {
                        kind: Some(body::Kind::Text(text(&said["envelope"]["body"]["text"]))),
                    }),
                    ..Default::default()
                }),
            }),
            "receiptAdvanced" => Frame::ReceiptAdvanced(wire::ReceiptAdvanced {
                peer: text(&said["peer"]),
                user: text(&said["user"]),
                cursor: Some(wire::Cursor {
                    delivered: number(&said["cursor"]["delivered"]),
                    read: number(&said["cursor"]["read"]),
                }),
            }),
            "goodbye" => Frame::Goodbye(wire::Goodbye {
                reason: wire::GoodbyeReason::from_str_name(said["reason"].as_str().unwrap())
                    .unwrap()
                    .into(),
                ..Default::default()
            }),
            _ => return None,
        })
    });
    ConverseResponse {
        r#ref: number(&json["ref"]),
        frame,
    }
}
