/** Single rules of the session. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { create, fromBinary, toBinary } from "@bufbuild/protobuf";

import type { Event } from "../src/api.ts";
import { Backoff } from "../src/backoff.ts";
import { ConverseRequestSchema, ConverseResponseSchema } from "../src/generated/duologue/chat/v1/chat_pb.ts";
import {
  CursorRejectedReason,
  DeferredReason,
  GoodbyeReason,
  HelloSchema,
  RejectedReason,
} from "../src/generated/duologue/chat/v1/frames_pb.ts";
import {
  BACKOFF_MAX_MS,
  HEARTBEAT_SLACK_MS,
  MAX_OUTBOX,
  MAX_TEXT_BYTES,
  PROBE_TIMEOUT_MS,
  WELCOME_TIMEOUT_MS,
} from "../src/limits.ts";
import { Session } from "../src/session.ts";
import { newDevice, type Saved } from "../src/session/records.ts";
import { lost } from "../src/session/types.ts";
import { down, type Down } from "./support/server.ts";

const OPTIONS = { user: "alice", clientName: "test", clientVersion: "1" };

/** A session with its world's time. */
class Driven {
  readonly session: Session;
  readonly events: Event[] = [];
  now = 0;
  wall = 1_000;

  constructor(saved: Partial<Saved> = {}) {
    this.session = new Session({ ...newDevice("device"), ...saved }, OPTIONS);
  }

  at() {
    return { now: this.now, wall: this.wall, dice: 0 };
  }

  save(): Saved {
    const { mark, state } = this.session.beginSave();
    this.session.saved(mark);
    return state;
  }

  drain(): Event[] {
    const fresh: Event[] = [];
    for (let item = this.session.nextEvent(); item; item = this.session.nextEvent()) fresh.push(item.event);
    this.events.push(...fresh);
    return fresh;
  }

  /** Opens the link; returns its Hello. */
  connect() {
    this.session.tick(this.at());
    assert.equal(this.session.wantedLink, undefined, "the number is saved first");
    this.save();
    assert.notEqual(this.session.wantedLink, undefined);
    const hello = this.session.hello();
    this.session.opened(256, this.at());
    return hello;
  }

  open(historyId = "h-1"): this {
    this.connect();
    this.give({ case: "welcome", value: { user: "alice", historyId, heartbeatInterval: { seconds: 20n } } });
    this.give({ case: "caughtUp", value: { syncToken: "token-1" } });
    this.drain();
    return this;
  }

  /** After a cut, on the next link. */
  reconnected(): this {
    this.session.ended(lost("cut"), this.at());
    this.now += 1_000;
    this.connect();
    this.give({ case: "welcome", value: { user: "alice", historyId: "h-1" } });
    return this;
  }

  give(frame: NonNullable<Down>): void {
    this.session.frame(down(frame), this.at());
  }

  goodbye(reason: GoodbyeReason, seconds?: bigint): void {
    const retryAfter = seconds === undefined ? {} : { retryAfter: { seconds } };
    this.give({ case: "goodbye", value: { reason, ...retryAfter } });
  }

  send(id: string): void {
    assert.equal(typeof this.session.send({ id, peer: "bob", text: "text", writtenAt: 0 }), "number");
    this.save();
  }

  /** The ids and after_seqs of what goes out now. */
  sends(): [string, number][] {
    const sends: [string, number][] = [];
    for (let frame = this.session.nextFrame(this.now); frame; frame = this.session.nextFrame(this.now)) {
      const { case: kind, value } = frame.frame;
      if (kind === "sendMessage") sends.push([value.messageId ?? "", Number(value.afterSeq)]);
    }
    return sends;
  }

  deliver(sender: string, messageId: string, seq: bigint): void {
    const recipient = sender === "alice" ? "bob" : "alice";
    this.give({ case: "messageDelivered", value: { envelope: { sender, recipient, messageId, seq } } });
  }

  defer(messageId: string, reason: DeferredReason, seconds?: bigint): void {
    const retryAfter = seconds === undefined ? {} : { retryAfter: { seconds } };
    this.give({ case: "deferred", value: { messageId, peer: "bob", reason, ...retryAfter } });
  }
}

test("a message goes out only after the save that holds it", () => {
  const driven = new Driven().open();
  driven.session.send({ id: "m-1", peer: "bob", text: "text", writtenAt: 0 });
  assert.deepEqual(driven.sends(), []);
  const { mark } = driven.session.beginSave();
  driven.session.send({ id: "m-2", peer: "bob", text: "text", writtenAt: 0 });
  driven.session.saved(mark);
  assert.deepEqual(driven.sends(), [["m-1", 0]]);
  assert.deepEqual(driven.drain().map(({ type }) => type), ["pending"]);
});

test("deferred messages go again oldest first, one at a time, then more with every answer", () => {
  const driven = new Driven().open();
  for (const id of ["m-1", "m-2", "m-3", "m-4"]) driven.send(id);
  assert.equal(driven.sends().length, 4);
  driven.defer("m-1", DeferredReason.RATE_LIMITED, 2n);
  for (const id of ["m-2", "m-3", "m-4"]) driven.defer(id, DeferredReason.BEHIND_EARLIER);
  assert.deepEqual(driven.sends(), []);
  driven.now += 2_000;
  assert.deepEqual(driven.sends(), [["m-1", 0]]);
  driven.give({ case: "stored", value: { messageId: "m-1", peer: "bob", seq: 1n } });
  assert.deepEqual(driven.sends().map(([id]) => id), ["m-2", "m-3"]);
});

test("after_seq of a message that was tried rises only over slots that were seen", () => {
  const driven = new Driven().open();
  driven.send("m-1");
  driven.sends();
  driven.deliver("bob", "b-1", 1n);
  assert.deepEqual(driven.reconnected().sends(), [["m-1", 1]]);
  // What lies between was never seen: it may hold the earlier copy.
  const other = new Driven().open();
  other.send("m-1");
  other.sends();
  other.deliver("bob", "b-5", 5n);
  assert.deepEqual(other.reconnected().sends(), [["m-1", 0]]);
});

test("an own message that is stored beyond a gap is not shown before what is in the gap", () => {
  const driven = new Driven().open();
  driven.deliver("bob", "b-1", 1n);
  driven.send("m-1");
  driven.sends();
  driven.drain();
  driven.give({ case: "stored", value: { messageId: "m-1", peer: "bob", seq: 3n } });
  assert.deepEqual(driven.drain().map(({ type }) => type), ["stored"]);
  driven.deliver("bob", "b-2", 2n);
  driven.deliver("alice", "m-1", 3n);
  const shown = driven.drain().flatMap((event) => (event.type === "message" ? [event.message.seq] : []));
  assert.deepEqual(shown, [2n, 3n]);
});

test("what is behind a deferred message and in flight is answered before anything goes again", () => {
  const driven = new Driven().open();
  for (const id of ["m-1", "m-2", "m-3"]) driven.send(id);
  driven.sends();
  driven.defer("m-1", DeferredReason.UNAVAILABLE);
  driven.give({ case: "stored", value: { messageId: "m-2", peer: "bob", seq: 1n } });
  driven.now += 1_000;
  assert.deepEqual(driven.sends(), []);
  driven.defer("m-3", DeferredReason.BEHIND_EARLIER);
  assert.deepEqual(driven.sends().map(([id]) => id), ["m-1"]);
});

test("what is deferred although it was found stored is taken off the server's list", () => {
  const driven = new Driven().open();
  driven.send("m-1");
  driven.sends();
  driven.deliver("alice", "m-1", 1n);
  driven.defer("m-1", DeferredReason.UNAVAILABLE);
  const frame = driven.session.nextFrame(driven.now)?.frame;
  assert.ok(frame?.case === "abandon");
  assert.equal(frame.value.messageId, "m-1");
});

test("a message of another sender under the same id is not taken for it", () => {
  const driven = new Driven().open();
  driven.send("m-1");
  driven.sends();
  driven.deliver("bob", "m-1", 1n);
  assert.equal(driven.session.pending().length, 1);
  driven.deliver("alice", "m-1", 2n);
  assert.equal(driven.session.pending().length, 0);
});

test("too old an after_seq is followed by a look through the conversation", () => {
  const driven = new Driven().open();
  driven.send("m-1");
  driven.sends();
  driven.defer("m-1", DeferredReason.AFTER_SEQ_TOO_OLD);
  driven.now += 1_000;
  assert.deepEqual(driven.sends(), [], "not before the look");
  const scan = driven.session.nextScan(driven.now);
  assert.deepEqual(scan, { ticket: 1, peer: "bob", afterSeq: 0n });
  assert.equal(driven.session.nextScan(driven.now), undefined, "one at a time");
});

test("a repeated message is dropped, and a gap ends the link", () => {
  const driven = new Driven().open();
  for (const seq of [1n, 2n, 2n, 1n, 3n]) driven.deliver("bob", `b-${seq}`, seq);
  const shown = driven.drain().flatMap((event) => (event.type === "message" ? [event.message.seq] : []));
  assert.deepEqual(shown, [1n, 2n, 3n]);
  driven.deliver("bob", "b-5", 5n);
  assert.equal(driven.session.wantedLink, undefined);
  assert.match(JSON.stringify(driven.session.state), /a message is missing/);
});

test("Hello says what is kept, and the connect number rises although the clock goes back", () => {
  const driven = new Driven().open();
  driven.deliver("bob", "b-1", 1n);
  driven.drain();
  driven.session.handedOver(1_000, driven.now);
  driven.session.ended(lost("cut"), driven.at());
  driven.wall = 10;
  driven.now += 1_000;
  const hello = driven.connect();
  assert.equal(hello.connectNumber, 1_001n);
  assert.deepEqual([hello.historyId, hello.syncToken], ["h-1", "token-1"]);
  assert.deepEqual(hello.positions.map(({ peer, seq }) => [peer, seq]), [["bob", 1n]]);
  assert.deepEqual(hello.cursors.map(({ peer, delivered }) => [peer, delivered]), [["bob", 1n]]);
});

test("a sync token is kept only after everything before it was taken", () => {
  const driven = new Driven().open();
  assert.equal(driven.save().device.syncToken, "");
  driven.session.handedOver(1_000, driven.now);
  assert.equal(driven.save().device.syncToken, "token-1");
});

test("each goodbye has its consequence", () => {
  const after = (reason: GoodbyeReason) => {
    const driven = new Driven().open();
    driven.goodbye(reason);
    return driven.session.state.kind;
  };
  assert.equal(after(GoodbyeReason.SUPERSEDED), "superseded");
  for (const reason of [
    GoodbyeReason.SHUTTING_DOWN,
    GoodbyeReason.UNAUTHENTICATED,
    GoodbyeReason.HISTORY_CHANGED,
    GoodbyeReason.RESYNC,
    GoodbyeReason.IDLE,
    GoodbyeReason.INTERNAL,
    // Once more without the token, which may have been at fault.
    GoodbyeReason.PROTOCOL_ERROR,
  ]) {
    assert.equal(after(reason), "waiting", GoodbyeReason[reason]);
  }
});

test("superseded stays so until the application takes the device back", () => {
  const driven = new Driven().open();
  driven.goodbye(GoodbyeReason.SUPERSEDED);
  driven.now += 10 * 60_000;
  driven.session.tick(driven.at());
  assert.equal(driven.session.state.kind, "superseded");
  driven.session.reconnect(driven.at());
  driven.session.tick(driven.at());
  assert.equal(driven.session.state.kind, "connecting");
});

test("a server's hint is waited in full", () => {
  const driven = new Driven().open();
  driven.goodbye(GoodbyeReason.SHUTTING_DOWN, 7n);
  driven.now += 6_999;
  driven.session.tick(driven.at());
  assert.equal(driven.session.state.kind, "waiting");
  driven.now += 1;
  driven.session.tick(driven.at());
  assert.equal(driven.session.state.kind, "connecting");
});

test("another history drops token, positions and every after_seq, and keeps the outbox", () => {
  const driven = new Driven().open();
  driven.deliver("bob", "b-1", 1n);
  driven.send("m-1");
  assert.deepEqual(driven.sends(), [["m-1", 1]]);
  driven.goodbye(GoodbyeReason.HISTORY_CHANGED);
  assert.ok(driven.drain().some(({ type }) => type === "history-changed"));
  driven.session.markRead("bob", 1n, driven.now + 1);
  driven.now += 1_000;
  const hello = driven.connect();
  assert.deepEqual([hello.historyId, hello.syncToken, hello.positions, hello.cursors], ["", "", [], []]);
  driven.give({ case: "welcome", value: { user: "alice", historyId: "h-2" } });
  driven.save();
  assert.deepEqual(driven.sends(), [["m-1", 0]]);
});

test("a clock that is a day ahead is not trusted once the server has refused its number", () => {
  const driven = new Driven({ device: { ...newDevice("device").device, connectNumber: 500, sureNumber: 500 } });
  driven.wall = 10_000_000;
  assert.equal(driven.connect().connectNumber, 10_000_000n);
  driven.session.ended({ kind: "refused", cause: "connect_number is too far ahead" }, driven.at());
  driven.now += 1_000;
  assert.equal(driven.connect().connectNumber, 501n);
  driven.session.ended({ kind: "refused", cause: "something else" }, driven.at());
  assert.equal(driven.session.state.kind, "stopped", "there is nothing else to leave out");
});

test("a token of another user stops the client", () => {
  const driven = new Driven();
  driven.connect();
  driven.give({ case: "welcome", value: { user: "mallory", historyId: "h-1" } });
  assert.deepEqual(driven.session.state, { kind: "stopped", reason: "other-user", detail: "the token is that of mallory" });
});

test("a stream that is silent for longer than the heartbeat interval is dead", () => {
  const driven = new Driven().open();
  driven.now += 20_000 + HEARTBEAT_SLACK_MS - 1;
  driven.session.tick(driven.at());
  assert.equal(driven.session.state.kind, "connected");
  driven.give({ case: "heartbeat", value: {} });
  driven.now += 20_000 + HEARTBEAT_SLACK_MS;
  assert.equal(driven.session.nextDeadline(driven.now - 1), driven.now);
  driven.session.tick(driven.at());
  assert.equal(driven.session.state.kind, "waiting");
});

test("no Welcome, or no answer to a Ping after a sleep, ends the link", () => {
  const driven = new Driven();
  driven.connect();
  driven.drain();
  driven.now += WELCOME_TIMEOUT_MS;
  driven.session.tick(driven.at());
  assert.equal(driven.session.state.kind, "waiting");
  driven.now += 1_000;
  driven.open();
  driven.session.probe(driven.now);
  assert.equal(driven.session.nextFrame(driven.now)?.frame.case, "ping");
  driven.now += PROBE_TIMEOUT_MS;
  driven.session.tick(driven.at());
  assert.equal(driven.session.state.kind, "waiting");
});

test("cursors go up together, are repeated until confirmed, and fall only to what is confirmed", () => {
  const driven = new Driven().open();
  driven.session.markRead("bob", 3n, driven.now);
  driven.session.markRead("bob", 2n, driven.now);
  const move = driven.session.nextFrame(driven.now)?.frame;
  assert.ok(move?.case === "advanceCursor");
  assert.deepEqual([move.value.delivered, move.value.read], [3n, 3n]);
  assert.equal(driven.session.nextFrame(driven.now), undefined);
  driven.give({ case: "cursorRejected", value: { peer: "bob", reason: CursorRejectedReason.UNAVAILABLE } });
  driven.now += 1_000;
  assert.equal(driven.session.nextFrame(driven.now)?.frame.case, "advanceCursor");
  driven.give({ case: "cursorRejected", value: { peer: "bob", reason: CursorRejectedReason.ABOVE_HEAD } });
  driven.now += 1_000;
  assert.equal(driven.session.nextFrame(driven.now), undefined);
});

test("receipts are told when they rise, and never lowered", () => {
  const driven = new Driven().open();
  const receipt = (user: string, delivered: bigint, read: bigint) =>
    driven.give({ case: "receiptAdvanced", value: { peer: "bob", user, cursor: { delivered, read } } });
  receipt("bob", 3n, 1n);
  receipt("bob", 2n, 2n);
  receipt("bob", 1n, 1n);
  receipt("alice", 2n, 2n);
  const told = driven.drain().map((event) => JSON.stringify(event, (_, it: unknown) => (typeof it === "bigint" ? Number(it) : it)));
  assert.deepEqual(told, [
    '{"type":"receipt","peer":"bob","delivered":3,"read":1}',
    '{"type":"receipt","peer":"bob","delivered":3,"read":2}',
    '{"type":"own-cursor","peer":"bob","delivered":2,"read":2}',
  ]);
});

test("a rejected message leaves the outbox, with its text for the application", () => {
  const driven = new Driven().open();
  driven.send("m-1");
  driven.sends();
  const value = { messageId: "m-1", peer: "bob", reason: RejectedReason.TOO_LONG, field: "body.text", detail: "too long" };
  driven.give({ case: "rejected", value });
  const rejected = driven.drain().find(({ type }) => type === "rejected");
  assert.deepEqual(rejected, {
    type: "rejected",
    messageId: "m-1",
    peer: "bob",
    text: "text",
    reason: "too-long",
    field: "body.text",
    detail: "too long",
  });
  assert.deepEqual(driven.session.pending(), []);
});

test("Hello fits in a frame, whatever there is to say, and unconfirmed cursors without room follow", () => {
  const highest = 2n ** 64n - 1n;
  const conversations = Array.from({ length: 600 }, (_, index) => ({
    peer: `${index}`.padStart(64, "x"),
    position: highest,
    known: highest,
    delivered: highest,
    read: highest,
    unconfirmed: true,
    peerDelivered: 0n,
    peerRead: 0n,
    active: 600 - index,
  }));
  const driven = new Driven({ conversations });
  const hello = driven.connect();
  const bytes = toBinary(HelloSchema, hello).length;
  assert.ok(bytes > 28 * 1024 && bytes < 60 * 1024, `${bytes}`);
  assert.equal(hello.positions[0]?.peer, "0".padStart(64, "x"));
  driven.give({ case: "welcome", value: { user: "alice", historyId: "h-1" } });
  let rest = 0;
  while (driven.session.nextFrame(driven.now)) rest += 1;
  assert.equal(hello.cursors.length + rest, 600);
});

test("text outside the limits, a full outbox and an id in use are refused", () => {
  const { session } = new Driven();
  const send = (id: string, text: string) => session.send({ id, peer: "bob", text, writtenAt: 0 });
  assert.equal(send("m", ""), "empty");
  assert.equal(send("m", "x".repeat(MAX_TEXT_BYTES + 1)), "too-long");
  for (let count = 0; count < MAX_OUTBOX; count += 1) assert.equal(typeof send(`m-${count}`, "x"), "number");
  assert.equal(send("m-1", "x"), "id-in-use");
  assert.equal(send("last", "x"), "full");
});

test("delays stay between what was asked and the ceiling, and a success starts over", () => {
  const backoff = new Backoff();
  for (const ceiling of [100, 200, 400]) assert.equal(backoff.next(undefined, 0.999_999), ceiling);
  for (let count = 0; count < 60; count += 1) assert.ok(backoff.next(5_000, 0.999_999) <= 5_000 + BACKOFF_MAX_MS);
  assert.equal(backoff.next(undefined, 0), 0);
  assert.equal(backoff.next(60 * 60_000, 0), 10 * 60_000);
  backoff.reset();
  assert.equal(backoff.next(undefined, 0.999_999), 100);
});

test("frames of later versions are ignored, and those of none", () => {
  const driven = new Driven().open();
  // Field 20, a message without content.
  const later = fromBinary(ConverseResponseSchema, Uint8Array.from([0xa2, 0x01, 0x00]));
  driven.session.frame(later, driven.at());
  driven.session.frame(create(ConverseResponseSchema), driven.at());
  assert.equal(driven.session.state.kind, "connected");
  assert.equal(fromBinary(ConverseRequestSchema, new Uint8Array()).frame.case, undefined);
});
