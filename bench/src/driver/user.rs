//! A user of a connection: what falls due, what is sent, what is answered.

use anyhow::{Context as _, Result, ensure};

use super::board::Board;
use super::wire::{self, Template};

/// Messages of a user that are on their way at most. Both of a pair together stay
/// below the 256 that a server looks through behind `after_seq`.
const MAX_UNANSWERED: usize = 64;

/// A user who is to enter.
pub(super) struct Entrant<'a> {
    /// Its number in the whole load.
    pub(super) index: usize,
    pub(super) token: &'a str,
    pub(super) template: Template,
    /// How many messages it sends in all.
    pub(super) messages: u64,
}

/// A user who has entered.
pub(super) struct User {
    pub(super) index: usize,
    template: Template,
    /// Messages that are still to fall due.
    left: u64,
    /// Messages that fell due and were not acknowledged.
    in_flight: usize,
    /// The numbers of the next message to send, and of the next to fall due.
    next: u64,
    next_due: u64,
    /// The highest sequence that the user has seen.
    latest: u64,
    /// Bytes that the server takes on its stream still.
    pub(super) window: i64,
    /// The beginning of a message whose rest is in the next frame.
    pub(super) part: Vec<u8>,
    pub(super) received: u32,
    /// Whether it is on the list of those who have something to send.
    pub(super) listed: bool,
}

impl User {
    pub(super) fn new(entrant: Entrant<'_>, window: i64) -> Self {
        Self {
            index: entrant.index,
            template: entrant.template,
            left: entrant.messages,
            in_flight: 0,
            next: 0,
            next_due: 0,
            latest: 0,
            window,
            part: Vec::new(),
            received: 0,
            listed: false,
        }
    }

    /// Whether a message is due that was not sent.
    pub(super) fn is_due(&self) -> bool {
        self.next < self.next_due
    }

    /// The next message falls due at that time, if there is one.
    pub(super) fn add_due(&mut self, board: &Board, at: u32) -> Result<()> {
        if self.left == 0 {
            return Ok(());
        }
        self.left -= 1;
        self.in_flight += 1;
        ensure!(
            self.in_flight <= board.in_flight(),
            "the server has fallen far behind"
        );
        board.due(self.index, self.next_due, at);
        self.next_due += 1;
        Ok(())
    }

    /// Sends what is due and has room, all in as few frames as it takes; returns how
    /// many bytes of the connection's window that takes.
    pub(super) fn send(
        &mut self,
        board: &Board,
        stream: u32,
        mut room: i64,
        out: &mut Vec<u8>,
    ) -> i64 {
        let length = self.template.len();
        let before = room;
        while self.is_due() {
            let bytes = usize::try_from(self.window.min(room)).unwrap_or(0);
            let fit = bytes.min(wire::MAX_PAYLOAD) / length;
            let due = usize::try_from(self.next_due - self.next).unwrap_or(usize::MAX);
            let count = due.min(fit).min(self.unanswered_room());
            if count == 0 {
                break;
            }
            wire::header(out, count * length, wire::DATA, 0, stream);
            for _ in 0..count {
                let id = board.sent(self.index, self.next);
                self.template.write(out, id, self.latest);
                self.next += 1;
            }
            let bytes = i64::try_from(count * length).unwrap_or(i64::MAX);
            self.window -= bytes;
            room -= bytes;
        }
        before - room
    }

    /// How many more may be on their way: what waits behind them is not sent, but its
    /// time runs.
    fn unanswered_room(&self) -> usize {
        let answered = self.next_due - self.in_flight as u64;
        let unanswered = usize::try_from(self.next - answered).unwrap_or(usize::MAX);
        MAX_UNANSWERED.saturating_sub(unanswered)
    }

    /// One of its messages was acknowledged.
    pub(super) fn answered(&mut self, seq: u64) -> Result<()> {
        self.seen(seq);
        let left = self.in_flight.checked_sub(1);
        self.in_flight = left.context("an answer that nobody waits for")?;
        Ok(())
    }

    pub(super) fn seen(&mut self, seq: u64) {
        self.latest = self.latest.max(seq);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(messages: u64) -> User {
        let entrant = Entrant {
            index: 0,
            token: "",
            template: Template::new("bob", 100).unwrap(),
            messages,
        };
        User::new(entrant, 1 << 20)
    }

    #[test]
    fn a_user_sends_what_is_due_and_no_more_than_it_has() {
        let (board, mut user, mut out) = (Board::new(1, 64), user(3), Vec::new());
        for _ in 0..5 {
            user.add_due(&board, 0).unwrap();
        }
        let taken = user.send(&board, 1, 1 << 20, &mut out);
        assert_eq!(board.counts().sent, 3);
        assert_eq!(taken, 3 * i64::try_from(user.template.len()).unwrap());
        assert!(!user.is_due());
    }

    #[test]
    fn what_has_no_room_stays_due() {
        let (board, mut user, mut out) = (Board::new(1, 64), user(9), Vec::new());
        user.add_due(&board, 0).unwrap();
        user.add_due(&board, 0).unwrap();
        let one = i64::try_from(user.template.len()).unwrap();
        assert_eq!(user.send(&board, 1, 2 * one - 1, &mut out), one);
        assert!(user.is_due());
        assert_eq!(user.send(&board, 1, one, &mut out), one);
        assert!(!user.is_due());
    }

    #[test]
    fn a_server_that_answers_nothing_is_not_sent_messages_for_ever() {
        let (board, mut user) = (Board::new(1, 64), user(u64::MAX));
        for _ in 0..64 {
            user.add_due(&board, 0).unwrap();
        }
        assert!(user.add_due(&board, 0).is_err());
        assert!(self::user(1).answered(1).is_err());
    }
}
