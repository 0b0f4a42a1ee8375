/** Rules of the session: what is sent when, what is shown, and what is refused. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { create, fromBinary } from "@bufbuild/protobuf";

import { ConverseRequestSchema, ConverseResponseSchema } from "../src/generated/duologue/chat/v1/chat_pb.ts";
import { CursorRejectedReason, DeferredReason, RejectedReason } from "../src/generated/duologue/chat/v1/frames_pb.ts";
import { MAX_OUTBOX, MAX_TEXT_BYTES } from "../src/limits.ts";
import { Driven } from "./support/driven.ts";

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

test("where a device begins is kept before it shows its first message, or a crash would skip some", () => {
  const driven = new Driven();
  driven.connect();
  driven.give({ case: "welcome", value: { user: "alice", historyId: "h-1" } });
  driven.save();
  driven.drain();
  driven.deliver("bob", "b-5", 5n);
  assert.equal(driven.session.nextEvent(), undefined);
  const state = driven.save();
  assert.deepEqual(driven.drain().map(({ type }) => type), ["message"]);
  // Killed now, the application may not have dealt with it.
  const again = new Driven(state);
  assert.deepEqual(again.connect().positions.map(({ peer, seq }) => [peer, seq]), [["bob", 4n]]);
  // The next one waits for nothing.
  driven.deliver("bob", "b-6", 6n);
  assert.notEqual(driven.session.nextEvent(), undefined);
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

test("text outside the limits, a full outbox and an id in use are refused", () => {
  const { session } = new Driven();
  const send = (id: string, text: string) => session.send({ id, peer: "bob", text, writtenAt: 0 });
  assert.equal(send("m", ""), "empty");
  assert.equal(send("m", "x".repeat(MAX_TEXT_BYTES + 1)), "too-long");
  for (let count = 0; count < MAX_OUTBOX; count += 1) assert.equal(typeof send(`m-${count}`, "x"), "number");
  assert.equal(send("m-1", "x"), "id-in-use");
  assert.equal(send("last", "x"), "full");
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
