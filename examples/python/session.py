"""The decisions of a client, without I/O: what the server says goes in, what is to
be sent comes out. Here is what keeps the promises of the contract while the
connection comes and goes:

- A message stays in the outbox, under one id, until the server has said that it
  is stored. Until then every new connection sends it again, the oldest first.
- The position says up to where every message is here, without a gap. Together with
  the sync token and the history id it brings exactly what is missing.
- The connect number rises with every connect, so that the newest one counts.

A real client writes all of `Device` to disk before it sends from it, and then the
same holds when its own process is killed.
"""

import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from duologue.chat.v1 import chat_pb2, frames_pb2, model_pb2

RESEND_S = 0.1  # for a deferred message without a delay of its own
CURSOR_RETRY_S = 1.0

WAITING, IN_FLIGHT, DEFERRED = "waiting", "in flight", "deferred"


class Lost(Exception):
    """The connection is gone: connect again, not before `retry_after` seconds."""

    def __init__(self, why: str, retry_after: float = 0.0):
        super().__init__(why)
        self.retry_after = retry_after


class Stop(Exception):
    """Connecting again by oneself would not help."""


@dataclass
class Pending:
    """A message that is not settled. Its id never changes."""

    id: str
    text: str
    state: str = WAITING


@dataclass
class Device:
    """What a device knows, over all its connections."""

    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    connect_number: int = 0
    history_id: str = ""
    sync_token: str = ""
    position: int = 0  # every message up to here is here
    read: int = 0  # up to here the person has read
    read_confirmed: int = 0  # up to here the server has stored that
    peer_read: int = 0  # up to here the peer has
    outbox: list[Pending] = field(default_factory=list)

    def forget_history(self) -> None:
        """Sequences of another history mean nothing; what is not sent still does."""
        self.history_id = self.sync_token = ""
        self.position = self.read = self.read_confirmed = self.peer_read = 0


class Session:
    """One conversation with `peer`, for as long as there is input."""

    def __init__(self, peer: str, tell: Callable[[str], None]):
        self.peer, self.tell = peer, tell
        self.device = Device()
        self.user = ""
        self.no_more_input = False
        self.caught_up = False
        self.stored = self.duplicates = self.rejected = 0
        self.begin()

    def begin(self) -> None:
        """Nothing that an earlier connection sent counts as sent on the next one."""
        for message in self.device.outbox:
            message.state = WAITING
        self.abandons: deque[str] = deque()
        self.read_asked = self.device.read_confirmed
        self.resume_at = self.cursor_at = 0.0
        self.max_in_flight = 1
        self.caught_up = False

    def send(self, text: str) -> None:
        self.device.outbox.append(Pending(uuid.uuid4().hex, text))

    # What goes up.

    def hello(self) -> chat_pb2.ConverseRequest:
        device = self.device
        # By the clock, so that it rises over restarts, too.
        device.connect_number = max(time.time_ns() // 1_000_000, device.connect_number + 1)
        hello = frames_pb2.Hello(
            device_id=device.id,
            connect_number=device.connect_number,
            history_id=device.history_id,
            sync_token=device.sync_token,
            positions=[frames_pb2.Position(peer=self.peer, seq=device.position)],
            client_name="example-python",
        )
        if device.read > device.read_confirmed:
            hello.cursors.add(peer=self.peer, read=device.read)
            self.read_asked = device.read
        return chat_pb2.ConverseRequest(hello=hello)

    def next_frame(self) -> chat_pb2.ConverseRequest | None:
        now = time.monotonic()
        if self.abandons:
            abandon = frames_pb2.Abandon(message_id=self.abandons.popleft())
            return chat_pb2.ConverseRequest(abandon=abandon)
        if self.device.read > self.read_asked and now >= self.cursor_at:
            self.read_asked = self.device.read
            cursor = frames_pb2.AdvanceCursor(peer=self.peer, read=self.read_asked)
            return chat_pb2.ConverseRequest(advance_cursor=cursor)
        if (message := self.next_message(now)) is None:
            return None
        message.state = IN_FLIGHT
        send = frames_pb2.SendMessage(
            peer=self.peer,
            message_id=message.id,
            # An earlier copy can only be behind this: whatever is up to the
            # position was seen, and what was seen there has left the outbox.
            after_seq=self.device.position,
            body=model_pb2.Body(text=message.text),
        )
        return chat_pb2.ConverseRequest(send_message=send)

    def next_message(self, now: float) -> Pending | None:
        """The oldest that waits. After a deferral all answers are awaited, and then
        what was deferred goes again, in order."""
        outbox = self.device.outbox
        in_flight = sum(it.state == IN_FLIGHT for it in outbox)
        if any(it.state == DEFERRED for it in outbox):
            if in_flight or now < self.resume_at:
                return None
            for message in outbox:
                message.state = WAITING
        if in_flight >= self.max_in_flight:
            return None
        return next((it for it in outbox if it.state == WAITING), None)

    def next_deadline(self) -> float | None:
        """Seconds until `next_frame` may have something by the passing of time."""
        now = time.monotonic()
        due = [at - now for at in (self.resume_at, self.cursor_at) if at > now]
        return min(due, default=None)

    def has_said_all(self) -> bool:
        """Input has ended, and nothing is left to send or to send again."""
        left = self.device.outbox or self.abandons or self.device.read > self.read_asked
        return self.no_more_input and not left

    def is_done(self) -> bool:
        return self.has_said_all() and self.device.read <= self.device.read_confirmed

    # What comes down.

    def receive(self, frame: chat_pb2.ConverseResponse) -> None:
        """Frames of a kind that is not known, or of no use here, are ignored."""
        kind = frame.WhichOneof("frame")
        if handler := getattr(self, f"on_{kind}", None):
            handler(getattr(frame, kind))

    def on_welcome(self, welcome: frames_pb2.Welcome) -> None:
        self.user = welcome.user
        self.device.history_id = welcome.history_id
        self.max_in_flight = max(1, welcome.limits.max_sends_in_flight)
        self.tell(f"* connected as {self.user}, who has [{self.device.position}]")

    def on_stored(self, stored: frames_pb2.Stored) -> None:
        self.duplicates += stored.duplicate
        if (message := self.settle(stored.message_id)) is None:
            return  # it was seen in what was missed
        self.stored += 1
        self.tell(f"  stored [{stored.seq}]{', by an earlier try' * stored.duplicate}")
        # The position never moves over a gap: then the message comes in its turn.
        if stored.seq == self.device.position + 1:
            self.show(stored.seq, self.user, message.text)

    def on_rejected(self, rejected: frames_pb2.Rejected) -> None:
        if message := self.settle(rejected.message_id):
            self.rejected += 1
            self.tell(f"  refused for good: {message.text!r}: {rejected.detail}")

    def on_deferred(self, deferred: frames_pb2.Deferred) -> None:
        if deferred.reason == frames_pb2.DEFERRED_REASON_AFTER_SEQ_AHEAD:
            self.device.forget_history()
            raise Lost("another history")
        if (message := self.find(deferred.message_id)) is None:
            self.abandons.append(deferred.message_id)  # others must not wait for it
            return
        message.state = DEFERRED
        delay = max(deferred.retry_after.ToTimedelta().total_seconds(), RESEND_S)
        self.resume_at = max(self.resume_at, time.monotonic() + delay)

    def on_message_delivered(self, delivered: frames_pb2.MessageDelivered) -> None:
        envelope = delivered.envelope
        own = envelope.sender == self.user
        if (envelope.recipient if own else envelope.sender) != self.peer:
            return  # of another conversation of this user
        if own and (message := self.settle(envelope.message_id)):
            self.stored += 1
            self.tell(f"  stored [{envelope.seq}], as it turns out")
            if message.state == DEFERRED:
                self.abandons.append(message.id)
        if envelope.seq <= self.device.position:
            return
        if envelope.seq > self.device.position + 1:
            raise Lost("a message is missing in the stream")
        text = envelope.body.text if envelope.body.WhichOneof("kind") else "(unknown kind)"
        self.show(envelope.seq, envelope.sender, text)

    def on_cursor_stored(self, stored: frames_pb2.CursorStored) -> None:
        if stored.peer == self.peer:
            self.device.read_confirmed = max(self.device.read_confirmed, stored.cursor.read)

    def on_cursor_rejected(self, rejected: frames_pb2.CursorRejected) -> None:
        if rejected.reason != frames_pb2.CURSOR_REJECTED_REASON_UNAVAILABLE:
            raise Stop(f"a cursor was refused: {rejected.detail}")
        self.read_asked = self.device.read_confirmed
        self.cursor_at = time.monotonic() + CURSOR_RETRY_S

    def on_receipt_advanced(self, receipt: frames_pb2.ReceiptAdvanced) -> None:
        if not receipt.peer == receipt.user == self.peer:
            return
        # After a reconnect an older one may come; what was shown never goes back.
        if receipt.cursor.read > self.device.peer_read:
            self.device.peer_read = receipt.cursor.read
            self.tell(f"  {receipt.user} has read up to [{receipt.cursor.read}]")

    def on_caught_up(self, caught_up: frames_pb2.CaughtUp) -> None:
        self.caught_up = True
        self.device.sync_token = caught_up.sync_token
        self.tell("* caught up")

    def on_goodbye(self, goodbye: frames_pb2.Goodbye) -> None:
        reason = frames_pb2.GoodbyeReason.Name(goodbye.reason)
        why = f"{reason.removeprefix('GOODBYE_REASON_').lower()}: {goodbye.detail}"
        if goodbye.reason in (
            frames_pb2.GOODBYE_REASON_SUPERSEDED,
            frames_pb2.GOODBYE_REASON_UNAUTHENTICATED,
            frames_pb2.GOODBYE_REASON_PROTOCOL_ERROR,
        ):
            raise Stop(why)
        if goodbye.reason == frames_pb2.GOODBYE_REASON_HISTORY_CHANGED:
            self.device.forget_history()
        raise Lost(why, goodbye.retry_after.ToTimedelta().total_seconds())

    def show(self, seq: int, sender: str, text: str) -> None:
        """A message has its place. It is shown once; here, that is reading it."""
        self.device.position = seq
        if sender != self.user:
            self.device.read = seq
        self.tell(f"[{seq}] {sender}: {text}")

    def find(self, message_id: str) -> Pending | None:
        return next((it for it in self.device.outbox if it.id == message_id), None)

    def settle(self, message_id: str) -> Pending | None:
        if message := self.find(message_id):
            self.device.outbox.remove(message)
        return message
