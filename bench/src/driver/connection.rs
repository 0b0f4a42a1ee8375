//! One connection of the driver: many users' streams on one socket.

use std::net::SocketAddr;
use std::rc::Rc;

use anyhow::{Context as _, Result, bail, ensure};
use duologue_proto::chat::v1::Hello;
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::board::Board;
use super::down::{self, Down};
use super::pace::{Schedule, Ticks};
use super::user::{Entrant, User};
use super::wire::{self, Header};

/// One connection.
pub(super) struct Connection {
    socket: TcpStream,
    board: Rc<Board>,
    users: Vec<User>,
    entered: usize,
    /// Bytes that the server takes on the connection, and on a new stream.
    window: i64,
    stream_window: i64,
    received: u32,
    /// The beginning of a frame whose rest was not read yet.
    part: Vec<u8>,
    out: Vec<u8>,
    written: usize,
    /// Users with something to send.
    sending: Vec<usize>,
    /// The next user to send by the clock.
    turn: usize,
    /// Whether messages fall due by the clock, not on an acknowledgement.
    paced: bool,
}

impl Connection {
    pub(super) async fn open(address: SocketAddr, board: &Rc<Board>) -> Result<Self> {
        let socket = TcpStream::connect(address)
            .await
            .context("cannot connect to the server")?;
        socket.set_nodelay(true)?;
        let mut out = Vec::new();
        wire::preface(&mut out);
        Ok(Self {
            socket,
            board: Rc::clone(board),
            users: Vec::new(),
            entered: 0,
            window: i64::from(wire::FIRST_WINDOW),
            stream_window: i64::from(wire::FIRST_WINDOW),
            received: 0,
            part: Vec::new(),
            out,
            written: 0,
            sending: Vec::new(),
            turn: 0,
            paced: false,
        })
    }

    /// Opens a user's stream and says hello on it, without a device.
    pub(super) fn enter(&mut self, entrant: Entrant<'_>) {
        let stream = stream_of(self.users.len());
        let hello = wire::hello(Hello::default());
        wire::open_call(&mut self.out, stream, "Converse", entrant.token);
        wire::header(&mut self.out, hello.len(), wire::DATA, 0, stream);
        self.out.extend_from_slice(&hello);
        let hello = i64::try_from(hello.len()).unwrap_or(i64::MAX);
        self.window -= hello;
        self.users
            .push(User::new(entrant, self.stream_window - hello));
    }

    pub(super) fn users(&self) -> usize {
        self.users.len()
    }

    /// Every user has so many messages in flight, for ever; ends only by an error.
    pub(super) async fn run(&mut self, window: usize) -> Result<()> {
        for user in 0..self.users.len() {
            for _ in 0..window {
                self.add_due(user, self.board.now())?;
            }
        }
        self.send();
        self.run_until(usize::MAX).await
    }

    /// The users send in turn as the schedule says, for ever; ends only by an error.
    pub(super) async fn run_paced(&mut self, mut schedule: Schedule) -> Result<()> {
        self.paced = true;
        let ticks = Ticks::new()?;
        loop {
            self.write()?;
            tokio::select! {
                biased;
                ready = self.socket.ready(self.interest()) => if ready?.is_readable() {
                    self.read()?;
                },
                tick = ticks.next() => tick?,
            }
            self.board.tick();
            while let Some(at) = schedule.next(self.board.now()) {
                if self.board.goes_on() {
                    self.board.planned(at);
                    self.add_due(self.turn, at)?;
                    self.turn = (self.turn + 1) % self.users.len();
                }
            }
            self.send();
        }
    }

    /// Reads and writes until so many users have caught up.
    pub(super) async fn run_until(&mut self, entered: usize) -> Result<()> {
        while self.entered < entered {
            self.write()?;
            let ready = self.socket.ready(self.interest()).await?;
            if ready.is_readable() {
                self.read()?;
            }
        }
        Ok(())
    }

    fn interest(&self) -> Interest {
        if self.out.is_empty() {
            Interest::READABLE
        } else {
            Interest::READABLE | Interest::WRITABLE
        }
    }

    fn read(&mut self) -> Result<()> {
        let board = Rc::clone(&self.board);
        let mut buffer = board.buffer.borrow_mut();
        let count = match self.socket.try_read(&mut buffer) {
            Ok(0) => bail!("the server closed a connection"),
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        board.tick();
        if self.part.is_empty() {
            let taken = self.take_frames(&buffer[..count])?;
            self.part.extend_from_slice(&buffer[taken..count]);
        } else {
            let mut part = std::mem::take(&mut self.part);
            part.extend_from_slice(&buffer[..count]);
            let taken = self.take_frames(&part)?;
            part.drain(..taken);
            self.part = part;
        }
        self.give_window();
        self.send();
        Ok(())
    }

    fn write(&mut self) -> Result<()> {
        while self.written < self.out.len() {
            match self.socket.try_write(&self.out[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        self.out.clear();
        self.written = 0;
        Ok(())
    }

    fn take_frames(&mut self, bytes: &[u8]) -> Result<usize> {
        wire::each_frame(bytes, |header, payload| self.take_frame(header, payload))
    }

    fn take_frame(&mut self, header: Header, payload: &[u8]) -> Result<()> {
        ensure!(!header.ends_stream(), "the server ended a call");
        match header.kind {
            wire::DATA => self.take_data(user_of(header.stream), payload)?,
            wire::SETTINGS if header.flags & wire::ACK == 0 => self.take_settings(payload),
            wire::PING if header.flags & wire::ACK == 0 => {
                wire::header(&mut self.out, payload.len(), wire::PING, wire::ACK, 0);
                self.out.extend_from_slice(payload);
            }
            wire::WINDOW_UPDATE => self.take_window(header.stream, payload)?,
            wire::RESET => bail!("the server broke off a call"),
            wire::GOAWAY => bail!("the server ends a connection"),
            _ => {}
        }
        Ok(())
    }

    fn take_settings(&mut self, payload: &[u8]) {
        for setting in payload.chunks_exact(6) {
            if let [0, 4, value @ ..] = setting
                && let Ok(value) = <[u8; 4]>::try_from(value)
            {
                let window = i64::from(u32::from_be_bytes(value));
                for user in &mut self.users {
                    user.window += window - self.stream_window;
                }
                self.stream_window = window;
            }
        }
        wire::header(&mut self.out, 0, wire::SETTINGS, wire::ACK, 0);
    }

    fn take_window(&mut self, stream: u32, payload: &[u8]) -> Result<()> {
        let by = <[u8; 4]>::try_from(payload).context("a window without its size")?;
        let by = i64::from(u32::from_be_bytes(by) & wire::MAX_WINDOW);
        if stream == 0 {
            self.window += by;
            self.sending = (0..self.users.len())
                .filter(|user| self.users[*user].listed)
                .collect();
        } else if let Some(user) = self.users.get_mut(user_of(stream)) {
            user.window += by;
        }
        Ok(())
    }

    fn take_data(&mut self, user: usize, payload: &[u8]) -> Result<()> {
        let length = u32::try_from(payload.len())?;
        self.received += length;
        let state = self.users.get_mut(user).context("a stream of nobody")?;
        state.received += length;
        let mut part = std::mem::take(&mut state.part);
        if part.is_empty() {
            let taken = self.take_messages(user, payload)?;
            part.extend_from_slice(&payload[taken..]);
        } else {
            part.extend_from_slice(payload);
            let taken = self.take_messages(user, &part)?;
            part.drain(..taken);
        }
        self.users[user].part = part;
        Ok(())
    }

    fn take_messages(&mut self, user: usize, bytes: &[u8]) -> Result<usize> {
        wire::each_message(bytes, |message| {
            self.take_down(user, down::read_down(message)?)
        })
    }

    fn take_down(&mut self, user: usize, down: Down) -> Result<()> {
        let state = &mut self.users[user];
        match down {
            Down::Stored { id, seq } => {
                state.answered(seq)?;
                self.board.stored(state.index, id)?;
                if !self.paced && self.board.goes_on() {
                    self.add_due(user, self.board.now())?;
                }
            }
            Down::Delivered { id, seq } => {
                state.seen(seq);
                self.board.delivered(state.index, id)?;
            }
            Down::CaughtUp => {
                self.entered += 1;
                self.board.entered();
            }
            Down::Other => {}
        }
        Ok(())
    }

    /// The user's next message falls due at that time, if it has one.
    fn add_due(&mut self, user: usize, at: u32) -> Result<()> {
        let state = &mut self.users[user];
        state.add_due(&self.board, at)?;
        if state.is_due() && !state.listed {
            state.listed = true;
            self.sending.push(user);
        }
        Ok(())
    }

    /// Sends what is due, the messages of one user together.
    fn send(&mut self) {
        let mut waiting = Vec::new();
        for user in self.sending.drain(..) {
            let (state, stream) = (&mut self.users[user], stream_of(user));
            self.window -= state.send(&self.board, stream, self.window, &mut self.out);
            state.listed = state.is_due();
            if state.listed {
                waiting.push(user);
            }
        }
        self.sending = waiting;
    }

    /// Lets the server send on, long before a window is full.
    fn give_window(&mut self) {
        const ENOUGH: u32 = wire::MAX_WINDOW / 4;
        if self.received < ENOUGH {
            return;
        }
        wire::window_update(&mut self.out, 0, self.received);
        self.received = 0;
        for (user, state) in self.users.iter_mut().enumerate() {
            if state.received > 0 {
                wire::window_update(&mut self.out, stream_of(user), state.received);
                state.received = 0;
            }
        }
    }
}

fn stream_of(user: usize) -> u32 {
    u32::try_from(2 * user + 1).unwrap_or(wire::MAX_WINDOW)
}

fn user_of(stream: u32) -> usize {
    stream as usize / 2
}
