/** Rules of the session: when it connects, with what, and what follows from an end. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { toBinary } from "@bufbuild/protobuf";

import { Backoff } from "../src/backoff.ts";
import { GoodbyeReason, HelloSchema } from "../src/generated/duologue/chat/v1/frames_pb.ts";
import { BACKOFF_MAX_MS, HEARTBEAT_SLACK_MS, PROBE_TIMEOUT_MS, SAVE_INTERVAL_MS, WELCOME_TIMEOUT_MS } from "../src/limits.ts";
import { newDevice } from "../src/session/records.ts";
import { lost } from "../src/session/types.ts";
import { Driven } from "./support/driven.ts";

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
  driven.session.ended({ kind: "lost", cause: "before Welcome" }, driven.at());
  driven.now += 1_000;
  assert.equal(driven.connect().connectNumber, 10_000_001n);
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
  driven.save();
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

test("what was under way when the network went does not keep a dead link", () => {
  const driven = new Driven().open();
  const passes = (after: number) => {
    driven.save();
    assert.equal(driven.session.nextDeadline(driven.now), driven.now + after);
    driven.now += after;
    driven.session.tick(driven.at());
  };
  driven.session.probe(driven.now);
  assert.equal(driven.session.nextFrame(driven.now)?.frame.case, "ping");
  driven.now += 10;
  driven.give({ case: "heartbeat", value: {} });
  passes(PROBE_TIMEOUT_MS);
  assert.equal(driven.session.state.kind, "waiting");

  // The answer itself may have been under way.
  driven.now += 1_000;
  driven.open();
  driven.session.setOnline(false);
  driven.session.probe(driven.now);
  for (let asked = 0; asked < 3; asked += 1) {
    assert.equal(driven.session.nextFrame(driven.now)?.frame.case, "ping");
    driven.give({ case: "pong", value: {} });
    assert.equal(driven.session.state.kind, "connected");
    passes(PROBE_TIMEOUT_MS);
  }
  assert.equal(driven.session.nextFrame(driven.now)?.frame.case, "ping");
  passes(PROBE_TIMEOUT_MS);
  assert.equal(driven.session.state.kind, "offline");
});

test("answers beside the stream do not keep a dead stream", () => {
  const driven = new Driven().open();
  const cursorStored = { case: "cursorStored", value: { peer: "bob" } } as const;
  driven.session.setOnline(false);
  for (let turn = 0; turn < 6; turn += 1) {
    driven.now += PROBE_TIMEOUT_MS;
    driven.session.tick(driven.at());
    assert.equal(driven.session.state.kind, turn < 5 ? "connected" : "offline", `${driven.now}`);
    driven.answer(cursorStored);
    if (turn === 5) break;
    assert.equal(driven.session.nextFrame(driven.now)?.frame.case, "ping");
    driven.answer({ case: "pong", value: {} });
    driven.save();
    assert.equal(driven.session.nextDeadline(driven.now), driven.now + PROBE_TIMEOUT_MS, "not back to back");
  }
  assert.equal(driven.now, 20_000 + HEARTBEAT_SLACK_MS);
});

test("a network that is back makes delays short again", () => {
  const driven = new Driven();
  for (let failures = 0; failures < 10; failures += 1) {
    driven.connect();
    driven.session.ended(lost("offline"), driven.at());
    driven.now += BACKOFF_MAX_MS;
  }
  driven.session.ended(lost("offline"), driven.at());
  driven.session.reconnect(driven.at());
  driven.connect();
  driven.session.ended(lost("no address yet"), { ...driven.at(), dice: 0.999 });
  driven.now += 1_000;
  driven.session.tick(driven.at());
  assert.equal(driven.session.state.kind, "connecting");
});

test("no save is due while another has not succeeded", () => {
  const driven = new Driven().open();
  driven.session.handedOver(1_000, driven.now);
  assert.equal(driven.session.nextDeadline(driven.now), driven.now + SAVE_INTERVAL_MS);
  driven.now += SAVE_INTERVAL_MS;
  const { mark } = driven.session.beginSave();
  driven.deliver("bob", "b-1", 1n);
  driven.now += SAVE_INTERVAL_MS;
  assert.ok((driven.session.nextDeadline(driven.now) ?? Infinity) > driven.now, "another would only wait for the first");
  driven.session.saved(mark);
  assert.equal(driven.session.nextDeadline(driven.now), driven.now);
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

test("delays stay between what was asked and the ceiling, and a success starts over", () => {
  const backoff = new Backoff();
  for (const ceiling of [100, 200, 400]) assert.equal(backoff.next(undefined, 0.999_999), ceiling);
  for (let count = 0; count < 60; count += 1) assert.ok(backoff.next(5_000, 0.999_999) <= 5_000 + BACKOFF_MAX_MS);
  assert.equal(backoff.next(undefined, 0), 0);
  assert.equal(backoff.next(60 * 60_000, 0), 10 * 60_000);
  backoff.reset();
  assert.equal(backoff.next(undefined, 0.999_999), 100);
});
