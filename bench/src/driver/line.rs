//! A connection with one call at a time, for what is asked rather than loaded:
//! pages, logins, a catch-up.

use std::net::SocketAddr;
use std::ops::ControlFlow;

use anyhow::{Context as _, Result, bail, ensure};
use duologue_proto::chat::v1::{ConverseResponse, Hello, converse_response};
use prost::Message;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::wire::{self, Header};

/// Room for a read.
const READ_BYTES: usize = 64 * 1024;

/// A connection.
pub(crate) struct Line {
    socket: TcpStream,
    /// The stream of the next call.
    stream: u32,
    /// What was read and is not a whole frame yet, and what is to be written.
    read: Vec<u8>,
    out: Vec<u8>,
}

/// A call under way.
struct Call<'a, F> {
    stream: u32,
    part: Vec<u8>,
    take: F,
    flow: ControlFlow<()>,
    out: &'a mut Vec<u8>,
}

impl Line {
    pub(crate) async fn open(address: SocketAddr) -> Result<Self> {
        let socket = TcpStream::connect(address)
            .await
            .context("cannot connect to the server")?;
        socket.set_nodelay(true)?;
        let mut out = Vec::new();
        wire::preface(&mut out);
        Ok(Self {
            socket,
            stream: 1,
            read: Vec::new(),
            out,
        })
    }

    /// A question with one answer.
    pub(crate) async fn ask<A: Message + Default>(
        &mut self,
        method: &str,
        token: &str,
        question: &impl Message,
    ) -> Result<A> {
        let question = wire::message(&question.encode_to_vec());
        self.open_call(method, token, &question, wire::END_STREAM);
        let mut answer = None;
        self.run(|message| {
            answer = Some(A::decode(message)?);
            Ok(ControlFlow::Continue(()))
        })
        .await?;
        answer.with_context(|| format!("the server refused {method}"))
    }

    /// Opens a session and gives every frame, until one of them is said to be the
    /// last; the session stays open until the line is dropped.
    pub(crate) async fn converse(
        &mut self,
        token: &str,
        hello: Hello,
        mut take: impl FnMut(converse_response::Frame) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        self.open_call("Converse", token, &wire::hello(hello), 0);
        let take = |message: &[u8]| match ConverseResponse::decode(message)?.frame {
            Some(converse_response::Frame::Goodbye(goodbye)) => bail!("{goodbye:?}"),
            Some(frame) => take(frame),
            None => Ok(ControlFlow::Continue(())),
        };
        let broken_off = self.run(take).await?;
        ensure!(broken_off, "the server ended a session");
        Ok(())
    }

    fn open_call(&mut self, method: &str, token: &str, message: &[u8], flags: u8) {
        wire::open_call(&mut self.out, self.stream, method, token);
        wire::header(&mut self.out, message.len(), wire::DATA, flags, self.stream);
        self.out.extend_from_slice(message);
    }

    /// Reads and writes until the call ends, or a message breaks it off: then true.
    async fn run<F>(&mut self, take: F) -> Result<bool>
    where
        F: FnMut(&[u8]) -> Result<ControlFlow<()>>,
    {
        let mut call = Call {
            stream: self.stream,
            part: Vec::new(),
            take,
            flow: ControlFlow::Continue(()),
            out: &mut self.out,
        };
        self.stream += 2;
        let mut ended = false;
        while !ended && call.flow.is_continue() {
            if !call.out.is_empty() {
                self.socket.write_all(call.out).await?;
                call.out.clear();
            }
            self.read.reserve(READ_BYTES);
            let count = self.socket.read_buf(&mut self.read).await?;
            ensure!(count > 0, "the server closed a connection");
            let taken = wire::each_frame(&self.read, |header, payload| {
                ended |= call.take_frame(header, payload)?;
                Ok(())
            })?;
            self.read.drain(..taken);
        }
        Ok(call.flow.is_break())
    }
}

impl<F: FnMut(&[u8]) -> Result<ControlFlow<()>>> Call<'_, F> {
    /// Returns whether the call has ended.
    fn take_frame(&mut self, header: Header, payload: &[u8]) -> Result<bool> {
        match header.kind {
            wire::DATA if header.stream == self.stream => self.take_data(payload)?,
            wire::SETTINGS if header.flags & wire::ACK == 0 => {
                wire::header(self.out, 0, wire::SETTINGS, wire::ACK, 0);
            }
            wire::PING if header.flags & wire::ACK == 0 => {
                wire::header(self.out, payload.len(), wire::PING, wire::ACK, 0);
                self.out.extend_from_slice(payload);
            }
            wire::RESET => bail!("the server broke off a call"),
            wire::GOAWAY => bail!("the server ends a connection"),
            _ => {}
        }
        Ok(header.stream == self.stream && header.ends_stream())
    }

    fn take_data(&mut self, payload: &[u8]) -> Result<()> {
        self.part.extend_from_slice(payload);
        let (take, flow) = (&mut self.take, &mut self.flow);
        let taken = wire::each_message(&self.part, |message| {
            if flow.is_continue() {
                *flow = take(message)?;
            }
            Ok(())
        })?;
        self.part.drain(..taken);
        Ok(())
    }
}
