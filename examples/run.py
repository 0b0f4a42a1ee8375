"""Proves the programs of this directory against a real server.

    python examples/run.py --server target/debug/duologue

Two users talk in Python, two in Go, and one in Python with one in Go. In each
conversation the answers to one side are withheld while it sends and then its
connection is cut, the server is killed (SIGKILL) and started again in the middle,
and the same is done to the other side. At the end both sides must hold the same
history, with every message once and in order, and must have shown exactly that.

It needs the Python packages of python/requirements.txt, and Go. It waits for
nothing without a limit, and ends with 1 and the transcripts if anything is wrong.
"""

import argparse
import os
import queue
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parent
ROOT = EXAMPLES.parent
LIMIT_S = 60.0  # of every wait
BUILD_LIMIT_S = 600.0
PAIRS = [("python", "python"), ("go", "go"), ("python", "go")]
SHOWN = re.compile(r"\[(\d+)\] (\S+): (.*)")


class Failed(Exception):
    pass


def await_that(what: str, condition, limit: float = LIMIT_S):
    """Polls, since what is awaited is in several threads and processes."""
    deadline = time.monotonic() + limit
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise Failed(f"not within {limit:.0f} s: {what}")
        time.sleep(0.005)
    return value


def drain(stream, lines: list[str]) -> threading.Thread:
    def read():
        for line in stream:
            lines.append(line.rstrip("\n"))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread


class Server:
    """The program under test; its port is another one after every start."""

    def __init__(self, program: Path, data: Path):
        self.program, self.data = program, data
        self.process, self.lines = None, []

    def start(self) -> int:
        self.lines = []
        self.process = subprocess.Popen(
            [self.program, "serve", "--data", self.data,
             "--grpc-listen", "127.0.0.1:0", "--web-listen", "127.0.0.1:0",
             "--admin-listen", "127.0.0.1:0"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        drain(self.process.stdout, self.lines)

        def port():
            if self.process.poll() is not None:
                raise Failed("the server does not start:\n" + "\n".join(self.lines))
            found = re.search(r"gRPC +http://127\.0\.0\.1:(\d+)", "\n".join(self.lines))
            return found and int(found[1])

        return await_that("the server says where it listens", port)

    def kill(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait(LIMIT_S)

    def token(self, user: str) -> str:
        made = subprocess.run([self.program, "token", user, "--data", self.data],
                              capture_output=True, text=True, check=True, timeout=LIMIT_S)
        return made.stdout.strip()


class Link:
    """One client's way to the server. It stays where it is when the server moves, can
    withhold what the server says, and can be cut."""

    def __init__(self):
        self.target = 0
        self.withholding = False
        self.lock = threading.Lock()
        self.pairs: list[tuple[socket.socket, socket.socket]] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.addr = "127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.target), timeout=LIMIT_S)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            with self.lock:
                self.pairs.append((client, server))
            for source, sink, down in ((client, server, False), (server, client, True)):
                threading.Thread(target=self.copy, args=(source, sink, down), daemon=True).start()

    def copy(self, source: socket.socket, sink: socket.socket, down: bool) -> None:
        try:
            while data := source.recv(65536):
                if not (down and self.withholding):
                    sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            hang_up(end)

    def cut(self) -> None:
        with self.lock:
            pairs, self.pairs = self.pairs, []
            for pair in pairs:
                for end in pair:
                    hang_up(end)
            self.withholding = False

    def close(self) -> None:
        hang_up(self.listener)
        self.listener.close()
        self.cut()


def hang_up(end: socket.socket) -> None:
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


class Client:
    """One user in one of the programs, with a thread that types."""

    def __init__(self, name: str, language: str, peer: str, token: str, command):
        self.name, self.language, self.peer = name, language, peer
        self.link, self.lines, self.sent = Link(), [], 0
        flag = "--" if language == "python" else "-"
        self.process = subprocess.Popen(
            [*command, f"{flag}addr", self.link.addr, f"{flag}peer", peer,
             f"{flag}history"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "DUOLOGUE_TOKEN": token},
        )
        self.reader = drain(self.process.stdout, self.lines)
        self.to_type: queue.Queue = queue.Queue()
        threading.Thread(target=self.type, daemon=True).start()

    def type(self) -> None:
        try:
            while (item := self.to_type.get()) is not None:
                text, pause = item
                time.sleep(pause)
                self.process.stdin.write(text + "\n")
                self.process.stdin.flush()
            self.process.stdin.close()
        except OSError:
            pass  # the program has ended: who awaits it finds out

    def say(self, count: int, dice: random.Random) -> None:
        for _ in range(count):
            self.sent += 1
            self.to_type.put((f"{self.name} says {self.sent}", dice.uniform(0, 0.03)))

    def shown(self) -> list[tuple[int, str, str]]:
        """What it has shown, in the order in which it did."""
        found = (SHOWN.fullmatch(line) for line in list(self.lines))
        return [(int(it[1]), it[2], it[3]) for it in found if it]

    def history(self) -> list[tuple[int, str, str]]:
        found = (SHOWN.fullmatch(line.removeprefix("history "))
                 for line in list(self.lines) if line.startswith("history "))
        return [(int(it[1]), it[2], it[3]) for it in found if it]

    def has_shown(self, text: str) -> bool:
        if self.process.poll() is not None:
            raise Failed(f"{self.name} ({self.language}) has ended early")
        return any(it[2] == text for it in self.shown())

    def summary(self) -> list[int]:
        done = next((line for line in self.lines if line.startswith("* done: ")), None)
        if done is None:
            raise Failed(f"{self.name} ({self.language}) does not say how it ended")
        return [int(number) for number in re.findall(r"\d+", done)]

    def close(self) -> None:
        self.to_type.put(None)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(LIMIT_S)
        self.link.close()


def lose_answers(victim: Client, other: Client, dice: random.Random) -> int:
    """Messages arrive whose answers never do; returns how many at least."""
    victim.link.withholding = True
    before, lost = victim.sent, dice.randint(1, 5)
    victim.say(6, dice)
    other.say(dice.randint(2, 8), dice)
    await_that(f"{other.name} is shown what {victim.name} sends",
               lambda: other.has_shown(f"{victim.name} says {before + lost}"))
    victim.link.cut()
    await_that(f"{victim.name} is back", lambda: victim.has_shown(f"{victim.name} says {before + 6}"))
    return lost


def kill_server(server: Server, clients: list[Client], dice: random.Random) -> None:
    """SIGKILL while both are sending; it is back somewhere else, a moment later."""
    before = clients[0].sent
    for client in clients:
        client.say(20, dice)
    until = f"{clients[0].name} says {before + dice.randint(2, 15)}"
    await_that("the conversation goes on", lambda: clients[1].has_shown(until))
    server.kill()
    time.sleep(dice.uniform(0, 0.8))
    port = server.start()
    for client in clients:
        client.link.target = port
    await_everything(clients)


def await_everything(clients: list[Client]) -> None:
    for client, peer in zip(clients, reversed(clients)):
        for one in (client, peer):
            await_that(f"{client.name} is shown all of {one.name}",
                       lambda: client.has_shown(f"{one.name} says {one.sent}"))


def converse(pair: tuple[str, str], commands, server: Server, dice: random.Random):
    """One conversation, from its first message to the checks; returns its clients."""
    names = [f"{language}-{number}-{dice.randrange(1 << 32):08x}"
             for number, language in enumerate(pair, 1)]
    port = server.start()
    clients = [Client(name, language, peer, server.token(name), commands[language])
               for name, peer, language in zip(names, reversed(names), pair)]
    try:
        for client in clients:
            client.link.target = port
            client.say(10, dice)
        await_everything(clients)
        lost = [lose_answers(*clients, dice)]
        kill_server(server, clients, dice)
        lost.append(lose_answers(*reversed(clients), dice))
        for client in clients:
            client.say(10, dice)
        await_everything(clients)
        for client in clients:
            client.to_type.put(None)
        for client in clients:
            client.process.wait(LIMIT_S)
            client.reader.join(LIMIT_S)
        check(clients, lost)
        return clients
    except (Failed, subprocess.TimeoutExpired):
        for client in clients:
            print(f"--- {client.name}", *client.lines, sep="\n")
        print("--- server", *server.lines[-30:], sep="\n")
        raise
    finally:
        for client in clients:
            client.close()
        server.kill()


def check(clients: list[Client], lost: list[int]) -> None:
    histories = [client.history() for client in clients]
    expect(histories[0] == histories[1], "both hold the same history")
    total = sum(client.sent for client in clients)
    seqs = [seq for seq, _, _ in histories[0]]
    expect(seqs == list(range(1, total + 1)), f"it is 1 to {total} without a gap, not {seqs}")
    for client, lost_here in zip(clients, lost):
        said = [text for _, sender, text in histories[0] if sender == client.name]
        wanted = [f"{client.name} says {number + 1}" for number in range(client.sent)]
        expect(said == wanted, f"what {client.name} said is there once and in order")
        expect(client.process.returncode == 0, f"{client.name} ends well")
        expect(client.shown() == histories[0], f"{client.name} was shown the history, each once")
        receipts = [int(line.rsplit("[")[-1][:-1]) for line in client.lines if " has read up to [" in line]
        expect(receipts and receipts == sorted(receipts), f"{client.name} shows no cursor that goes back")
        stored, duplicates, refused, reconnects, read = client.summary()
        expect((stored, refused) == (client.sent, 0), f"{client.name} was told of each, once")
        expect(reconnects >= 2, f"{client.name} was disconnected twice")
        last = max(seq for seq, sender, _ in histories[0] if sender == client.peer)
        expect(read == last, f"the cursor of {client.name} is at {read}, not at {last}")
        # A resend is answered, unless what was missed has shown the message before.
        again = sum("by an earlier try" in line or "as it turns out" in line for line in client.lines)
        expect(again >= lost_here, f"{client.name} resent {again}, of {lost_here} without an answer")
        # The oldest of them is sent before anything is read, so that it is a duplicate.
        expect(duplicates >= 1, f"{client.name} is told of a duplicate")
        client.report = (f"{client.name}: {stored} stored, {duplicates} answered as duplicates, "
                         f"{again} settled by a resume, {reconnects} reconnects")


def expect(holds: bool, promise: str) -> None:
    if not holds:
        raise Failed(f"broken: {promise}")


def prepare(work: Path) -> dict[str, list]:
    """Makes the Python stubs and builds the Go program, away from the sources."""
    source, stubs = EXAMPLES / "python", work / "python"
    shutil.copytree(source, stubs, ignore=shutil.ignore_patterns("duologue", "__pycache__"))
    protos = sorted(path.relative_to(ROOT / "proto") for path in ROOT.glob("proto/duologue/chat/v1/*.proto"))
    run = {"check": True, "timeout": BUILD_LIMIT_S}
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={ROOT / 'proto'}",
                    f"--python_out={stubs}", f"--grpc_python_out={stubs}", *protos], **run)
    subprocess.run(["go", "build", "-o", work / "chat", "."], cwd=EXAMPLES / "go", **run)
    return {"python": [sys.executable, stubs / "chat.py"], "go": [work / "chat"]}


def main() -> None:
    parser = argparse.ArgumentParser(description="Proves the examples against a real server.")
    parser.add_argument("--server", type=Path, default=ROOT / "target/debug/duologue")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32),
                        help="of the timing (random)")
    args = parser.parse_args()
    print(f"seed {args.seed}", flush=True)
    dice = random.Random(args.seed)
    with tempfile.TemporaryDirectory(prefix="duologue-examples-") as work:
        commands = prepare(Path(work))
        for pair in PAIRS:
            began = time.monotonic()
            clients = converse(pair, commands, Server(args.server.resolve(), Path(work) / "data"), dice)
            total = sum(client.sent for client in clients)
            print(f"{pair[0]} with {pair[1]}: {total} messages, each once, in one order; "
                  f"{time.monotonic() - began:.1f} s")
            for client in clients:
                print(f"  {client.report}", flush=True)


if __name__ == "__main__":
    try:
        main()
    except (Failed, subprocess.SubprocessError) as error:
        sys.exit(f"FAILED: {error}")
