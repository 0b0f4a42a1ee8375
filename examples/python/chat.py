"""Talk to one person from the terminal: every line of input is a message.

    DUOLOGUE_TOKEN=... python chat.py --peer bob

Here is the I/O: the connection, and waiting before the next one. What is said on
it is decided in session.py.
"""

import argparse
import asyncio
import os
import random
import sys
import threading
from functools import partial

import grpc
from google.rpc.error_details_pb2 import RetryInfo
from grpc_status import rpc_status

from duologue.chat.v1 import chat_pb2, chat_pb2_grpc, model_pb2
from session import Lost, Session, Stop

BACKOFF_MIN_S, BACKOFF_MAX_S = 0.1, 30.0
RETRY_AFTER_MAX_S = 600.0
WELCOME_S = 10.0  # connecting included
CALL_S = 10.0
PAGE_SIZE = 20

CHANNEL_OPTIONS = [
    # A connection that died without a word is noticed by HTTP/2 PING.
    ("grpc.keepalive_time_ms", 15_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # Waiting between connects is done here, and not by gRPC on top of that.
    ("grpc.use_local_subchannel_pool", 1),
]


class Chat:
    def __init__(self, args: argparse.Namespace):
        self.open_channel = partial(grpc.aio.insecure_channel, args.addr, CHANNEL_OPTIONS)
        self.metadata = [("authorization", f"Bearer {args.token}")]
        self.session = Session(args.peer, partial(print, flush=True))
        self.wake = asyncio.Event()  # there may be something to send
        self.reconnects = 0

    async def run(self) -> None:
        """Connects again and again until all is said and answered."""
        failures = 0
        while True:
            try:
                await self.converse()
                if self.session.is_done():
                    return
                raise Lost("the server ended the stream")
            except Lost as lost:
                failures = 1 if self.session.caught_up else failures + 1
                # Full jitter, on top of what the server asks for: clients that
                # lost one server do not come back all at once.
                ceiling = min(BACKOFF_MIN_S * 2 ** min(failures - 1, 16), BACKOFF_MAX_S)
                delay = min(lost.retry_after, RETRY_AFTER_MAX_S) + random.uniform(0, ceiling)
                print(f"* disconnected: {lost}; next try in {delay:.2f} s", flush=True)
                await asyncio.sleep(delay)
                self.reconnects += 1

    async def converse(self) -> None:
        """One connection, from `Hello` to the end of the stream."""
        self.session.begin()
        async with self.open_channel() as channel:
            call = chat_pb2_grpc.ChatServiceStub(channel).Converse(metadata=self.metadata)
            sender = None
            try:
                async with asyncio.timeout(WELCOME_S):
                    await call.write(self.session.hello())
                    welcome = await call.read()
                if welcome is grpc.aio.EOF:
                    raise Lost("no Welcome")
                self.session.receive(welcome)
                # What is not answered is sent again at once, and not only when what
                # was missed is read: the server knows by the id what it has stored.
                sender = asyncio.create_task(self.send(call))
                while (frame := await call.read()) is not grpc.aio.EOF:
                    self.session.receive(frame)
                    self.wake.set()
            except grpc.aio.AioRpcError as error:
                if error.code() == grpc.StatusCode.FAILED_PRECONDITION:
                    self.session.device.forget_history()
                raise ended(error) from error
            except TimeoutError as error:
                raise Lost("no Welcome in time") from error
            finally:
                call.cancel()
                if sender:
                    sender.cancel()
                    await asyncio.gather(sender, return_exceptions=True)

    async def send(self, call: grpc.aio.StreamStreamCall) -> None:
        try:
            while not self.session.has_said_all():
                if frame := self.session.next_frame():
                    await call.write(frame)
                    continue
                self.wake.clear()
                try:
                    await asyncio.wait_for(self.wake.wait(), self.session.next_deadline())
                except TimeoutError:
                    pass
            # The server answers what is under way, then ends the stream with OK.
            await call.done_writing()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass  # the stream has ended: who reads it is told why

    def read_input(self, loop: asyncio.AbstractEventLoop) -> None:
        """Runs in a thread of its own, which the end of the program need not await;
        so it opens standard input for itself."""
        with open(sys.stdin.fileno(), closefd=False) as lines:
            for line in lines:
                loop.call_soon_threadsafe(self.take, line.rstrip("\n"))
        loop.call_soon_threadsafe(self.take, None)

    def take(self, text: str | None) -> None:
        if text is None:
            self.session.no_more_input = True
        elif text:
            self.session.send(text)
        self.wake.set()

    async def print_history(self) -> None:
        request = chat_pb2.ListMessagesRequest(
            peer=self.session.peer, page_size=PAGE_SIZE, direction=model_pb2.DIRECTION_FORWARD
        )
        async with self.open_channel() as channel:
            stub = chat_pb2_grpc.ChatServiceStub(channel)
            while True:
                page = await stub.ListMessages(request, metadata=self.metadata, timeout=CALL_S)
                for it in page.messages:
                    print(f"history [{it.seq}] {it.sender}: {it.body.text}")
                if not page.next_page_token:
                    return
                request.page_token = page.next_page_token


def ended(error: grpc.aio.AioRpcError) -> Exception:
    """What follows from the failure of the stream."""
    why = f"{error.code().name}: {error.details()}"
    if error.code() in (
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.UNIMPLEMENTED,
    ):
        return Stop(why)
    status, info = rpc_status.from_call(error), RetryInfo()
    for detail in status.details if status else ():
        if detail.Unpack(info):
            return Lost(why, info.retry_delay.ToTimedelta().total_seconds())
    return Lost(why)


async def main(args: argparse.Namespace) -> int:
    chat = Chat(args)
    loop = asyncio.get_running_loop()
    threading.Thread(target=chat.read_input, args=(loop,), daemon=True).start()
    await chat.run()
    session = chat.session
    print(
        f"* done: {session.stored} stored, {session.duplicates} answered as duplicates, "
        f"{session.rejected} refused, {chat.reconnects} reconnects, "
        f"read up to [{session.device.read_confirmed}]"
    )
    if args.history:
        await chat.print_history()
    return 1 if session.rejected else 0


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Talk to one person, line by line.")
    parser.add_argument("--addr", default="127.0.0.1:50051", help="host:port (%(default)s)")
    parser.add_argument("--peer", required=True, help="whom to talk to")
    parser.add_argument("--token", default=os.environ.get("DUOLOGUE_TOKEN"),
                        help="default: DUOLOGUE_TOKEN, which no list of processes shows")
    parser.add_argument("--history", action="store_true", help="print it at the end")
    args = parser.parse_args()
    if not args.token:
        parser.error("no token: give --token or set DUOLOGUE_TOKEN")
    return args


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main(parse_args())))
    except Stop as stop:
        sys.exit(f"stopped: {stop}")
    except KeyboardInterrupt:
        sys.exit(130)
