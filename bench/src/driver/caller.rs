//! One user by one of the doors, on a connection of its own: as a client has it, and
//! not as a load of many users shares few.
//!
//! gRPC-Web is spoken over HTTP/2, as browsers do it behind TLS: so what is compared
//! with native gRPC is gRPC-Web and not HTTP/1.1.

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::rc::Rc;

use anyhow::{Context as _, Result, bail, ensure};
use duologue_proto::chat::v1::{
    Body, ConverseRequest, Hello, SendMessage, SendMessageRequest, SendMessageResponse,
    SubscribeRequest, body, converse_request,
};
use prost::Message as _;
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::board::Board;
use super::down::{self, Down};
use super::socket::{BINARY, PING, PONG, read_socket_frame, socket_frame};
use super::wire::{self, Header};

/// A way in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Door {
    /// `Converse` by gRPC.
    Converse,
    /// `Subscribe`, and each message a call, by gRPC.
    Subscribe,
    /// The same by gRPC-Web.
    GrpcWeb,
    /// `Converse` by a `WebSocket` of protobuf.
    WebSocket,
}

impl Door {
    pub(crate) const ALL: [Self; 4] = [
        Self::Converse,
        Self::Subscribe,
        Self::GrpcWeb,
        Self::WebSocket,
    ];

    /// Whether it leads through the gateway.
    pub(crate) fn is_web(self) -> bool {
        matches!(self, Self::GrpcWeb | Self::WebSocket)
    }

    /// Whether each message is a call.
    fn is_unary(self) -> bool {
        matches!(self, Self::Subscribe | Self::GrpcWeb)
    }

    fn content_type(self) -> &'static str {
        if self == Self::GrpcWeb {
            "application/grpc-web+proto"
        } else {
            "application/grpc"
        }
    }
}

/// The stream of the session.
const SESSION: u32 = 1;
/// What stands before the end of a call by gRPC-Web.
const TRAILERS: u8 = 0x80;
/// Who enters.
pub(super) struct Guest<'a> {
    pub(super) index: usize,
    pub(super) token: &'a str,
    pub(super) peer: &'a str,
    pub(super) text_bytes: usize,
    /// How many messages it sends in all.
    pub(super) messages: u64,
}

pub(super) struct Caller {
    socket: TcpStream,
    board: Rc<Board>,
    door: Door,
    index: usize,
    token: String,
    send: SendMessage,
    left: u64,
    next: u64,
    /// The highest sequence that the user has seen.
    latest: u64,
    /// The stream of the next call.
    stream: u32,
    entered: bool,
    upgraded: bool,
    /// What was read, and of the session's stream what was taken out of that.
    read: Vec<u8>,
    session: Vec<u8>,
    out: Vec<u8>,
    written: usize,
}

impl Caller {
    /// Says hello, without a device.
    pub(super) async fn open(
        (door, address): (Door, SocketAddr),
        board: &Rc<Board>,
        guest: Guest<'_>,
    ) -> Result<Self> {
        let socket = TcpStream::connect(address)
            .await
            .context("cannot connect to the server")?;
        socket.set_nodelay(true)?;
        let text = body::Kind::Text("x".repeat(guest.text_bytes));
        let mut caller = Self {
            socket,
            board: Rc::clone(board),
            door,
            index: guest.index,
            token: guest.token.to_owned(),
            send: SendMessage {
                peer: guest.peer.to_owned(),
                body: Some(Body { kind: Some(text) }),
                ..SendMessage::default()
            },
            left: guest.messages,
            next: 0,
            latest: 0,
            stream: SESSION + 2,
            entered: false,
            upgraded: false,
            read: Vec::new(),
            session: Vec::new(),
            out: Vec::new(),
            written: 0,
        };
        caller.hello(address)?;
        Ok(caller)
    }

    fn hello(&mut self, address: SocketAddr) -> Result<()> {
        let hello = wire::hello(Hello::default());
        if self.door == Door::WebSocket {
            let head = format!(
                "GET /ws HTTP/1.1\r\nhost: {address}\r\nconnection: upgrade\r\nupgrade: \
                 websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: \
                 dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: duologue.v1.proto\r\n\
                 authorization: Bearer {}\r\n\r\n",
                self.token
            );
            self.out.extend_from_slice(head.as_bytes());
            return socket_frame(&mut self.out, BINARY, &hello[PREFIX..]);
        }
        wire::preface(&mut self.out);
        if self.door == Door::Converse {
            self.open_call(SESSION, "Converse");
            wire::header(&mut self.out, hello.len(), wire::DATA, 0, SESSION);
            self.out.extend_from_slice(&hello);
        } else {
            let subscribe = SubscribeRequest::default().encode_to_vec();
            self.call(SESSION, "Subscribe", &subscribe);
        }
        Ok(())
    }

    fn open_call(&mut self, stream: u32, method: &str) {
        let kind = self.door.content_type();
        wire::open_call_as(&mut self.out, (stream, kind), method, &self.token);
    }

    /// A call with one message.
    fn call(&mut self, stream: u32, method: &str, message: &[u8]) {
        self.open_call(stream, method);
        let message = wire::message(message);
        wire::header(
            &mut self.out,
            message.len(),
            wire::DATA,
            wire::END_STREAM,
            stream,
        );
        self.out.extend_from_slice(&message);
    }

    /// Has so many messages in flight, for ever; ends only by an error.
    pub(super) async fn run(&mut self, window: usize) -> Result<()> {
        for _ in 0..window {
            self.send_next()?;
        }
        loop {
            self.turn().await?;
        }
    }

    /// Reads and writes until the user has caught up.
    pub(super) async fn enter(&mut self) -> Result<()> {
        while !self.entered {
            self.turn().await?;
        }
        Ok(())
    }

    async fn turn(&mut self) -> Result<()> {
        self.write()?;
        let mut interest = Interest::READABLE;
        if !self.out.is_empty() {
            interest |= Interest::WRITABLE;
        }
        if self.socket.ready(interest).await?.is_readable() {
            self.read()?;
        }
        Ok(())
    }

    fn write(&mut self) -> Result<()> {
        while self.written < self.out.len() {
            match self.socket.try_write(&self.out[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        self.out.clear();
        self.written = 0;
        Ok(())
    }

    fn read(&mut self) -> Result<()> {
        let board = Rc::clone(&self.board);
        let mut buffer = board.buffer.borrow_mut();
        let count = match self.socket.try_read(&mut buffer) {
            Ok(0) => bail!("the server closed a connection"),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        board.tick();
        let mut read = std::mem::take(&mut self.read);
        read.extend_from_slice(&buffer[..count]);
        let taken = if self.door == Door::WebSocket {
            self.take_socket(&read)?
        } else {
            wire::each_frame(&read, |header, payload| self.take_frame(header, payload))?
        };
        read.drain(..taken);
        self.read = read;
        Ok(())
    }

    fn take_frame(&mut self, header: Header, payload: &[u8]) -> Result<()> {
        match header.kind {
            wire::DATA if header.stream == SESSION => self.take_session(payload)?,
            wire::DATA => self.take_answer(payload)?,
            wire::SETTINGS if header.flags & wire::ACK == 0 => {
                wire::header(&mut self.out, 0, wire::SETTINGS, wire::ACK, 0);
            }
            wire::PING if header.flags & wire::ACK == 0 => {
                wire::header(&mut self.out, payload.len(), wire::PING, wire::ACK, 0);
                self.out.extend_from_slice(payload);
            }
            wire::RESET => bail!("the server broke off a call"),
            wire::GOAWAY => bail!("the server ends a connection"),
            _ => {}
        }
        let ended = header.stream == SESSION && header.ends_stream();
        ensure!(!ended, "the server ended a session");
        Ok(())
    }

    fn take_session(&mut self, payload: &[u8]) -> Result<()> {
        let mut session = std::mem::take(&mut self.session);
        session.extend_from_slice(payload);
        let taken = wire::each_message(&session, |message| self.take_down(message))?;
        session.drain(..taken);
        self.session = session;
        Ok(())
    }

    /// The answer to a call: small, and so in one piece. By gRPC-Web its end follows,
    /// by gRPC that stands in headers.
    fn take_answer(&mut self, payload: &[u8]) -> Result<()> {
        if payload.is_empty() {
            return Ok(());
        }
        let end = payload.first().is_some_and(|flag| *flag == TRAILERS);
        let mut answers = 0;
        let taken = wire::each_message(payload, |message| {
            if end {
                let text = String::from_utf8_lossy(message);
                ensure!(text.contains("grpc-status:0"), "a call failed: {text}");
                return Ok(());
            }
            answers += 1;
            if answers > 1 {
                // The end, in the same piece.
                return Ok(());
            }
            let stored = SendMessageResponse::decode(message)?;
            let id = u64::from_str_radix(&stored.message_id, 16)?;
            self.stored(id, stored.seq)
        })?;
        ensure!(taken == payload.len(), "an answer in pieces");
        Ok(())
    }

    fn take_socket(&mut self, read: &[u8]) -> Result<usize> {
        let mut rest = read;
        if !self.upgraded {
            const END: &[u8] = b"\r\n\r\n";
            let Some(end) = rest.windows(END.len()).position(|bytes| bytes == END) else {
                return Ok(0);
            };
            let head = String::from_utf8_lossy(&rest[..end]).into_owned();
            ensure!(head.starts_with("HTTP/1.1 101 "), "no upgrade: {head}");
            self.upgraded = true;
            rest = &rest[end + END.len()..];
        }
        while let Some((kind, payload, after)) = read_socket_frame(rest) {
            match kind {
                BINARY => self.take_down(payload)?,
                PING => socket_frame(&mut self.out, PONG, payload)?,
                PONG => {}
                _ => bail!("frame {kind}: {}", String::from_utf8_lossy(payload)),
            }
            rest = after;
        }
        Ok(read.len() - rest.len())
    }

    fn take_down(&mut self, message: &[u8]) -> Result<()> {
        match down::read_down(message)? {
            Down::Stored { id, seq } => self.stored(id, seq)?,
            Down::Delivered { id, seq } => {
                self.latest = self.latest.max(seq);
                self.board.delivered(self.index, id)?;
            }
            Down::CaughtUp if !self.entered => {
                self.entered = true;
                self.board.entered();
            }
            Down::CaughtUp | Down::Other => {}
        }
        Ok(())
    }

    fn stored(&mut self, id: u64, seq: u64) -> Result<()> {
        self.latest = self.latest.max(seq);
        self.board.stored(self.index, id)?;
        if self.board.goes_on() {
            self.send_next()?;
        }
        Ok(())
    }

    fn send_next(&mut self) -> Result<()> {
        let Some(left) = self.left.checked_sub(1) else {
            return Ok(());
        };
        self.left = left;
        self.board.due(self.index, self.next, self.board.now());
        let id = self.board.sent(self.index, self.next);
        self.next += 1;
        let mut name = String::with_capacity(wire::ID);
        write!(name, "{id:016x}")?;
        let send = SendMessage {
            message_id: Some(name),
            after_seq: Some(self.latest),
            ..self.send.clone()
        };
        if self.door.is_unary() {
            let request = SendMessageRequest {
                peer: send.peer,
                message_id: send.message_id,
                after_seq: send.after_seq,
                body: send.body,
            };
            let stream = self.stream;
            self.stream += 2;
            self.call(stream, "SendMessage", &request.encode_to_vec());
            return Ok(());
        }
        let request = ConverseRequest {
            r#ref: 0,
            frame: Some(converse_request::Frame::SendMessage(send)),
        };
        let request = request.encode_to_vec();
        if self.door == Door::WebSocket {
            return socket_frame(&mut self.out, BINARY, &request);
        }
        let message = wire::message(&request);
        wire::header(&mut self.out, message.len(), wire::DATA, 0, SESSION);
        self.out.extend_from_slice(&message);
        Ok(())
    }
}

/// What stands before a message of gRPC.
const PREFIX: usize = 5;
