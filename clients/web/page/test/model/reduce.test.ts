import assert from "node:assert/strict";
import { test } from "node:test";
import { markOf } from "../../src/model/chat.ts";
import { reduce } from "../../src/model/reduce.ts";
import type { State } from "../../src/model/types.ts";
import { after, chatOf, event, listed, ME, message, messages, page, seqs, START } from "./support.ts";

const live = (seq: number, sender = "bob") => event({ type: "message", message: message(seq, sender) });
const sent = (id: string, text: string) =>
  event({ type: "pending", message: { messageId: id, peer: "bob", text, writtenAt: new Date(START) } });
const stored = (id: string, seq: number) =>
  event({ type: "stored", messageId: id, peer: "bob", seq: BigInt(seq), acceptedAt: new Date(START + 5000), duplicate: false });

test("a live message that the list counts already is counted once", () => {
  for (const order of [[listed(10, 2, 8), live(10)], [live(10), listed(10, 2, 8)]]) {
    assert.equal(chatOf(after(...order)).unread, 2);
  }
});

test("a live message beyond an older answer of the list stays counted", () => {
  const state = after(live(10), live(11), listed(9, 1, 8));
  assert.equal(chatOf(state).unread, 3);
  assert.equal(chatOf(state).head, 11n);
});

test("own messages are not unread", () => {
  assert.equal(chatOf(after(listed(8, 0, 8), live(9, ME), live(10))).unread, 1);
});

test("reading up to a place leaves what lies after it", () => {
  const state = after(listed(8, 0, 8), page(1, 8), live(9), live(10, ME), live(11), { type: "seen", peer: "bob", seq: 9n });
  assert.equal(chatOf(state).unread, 1);
  const read = reduce(state, event({ type: "own-cursor", peer: "bob", delivered: 11n, read: 11n }));
  assert.equal(chatOf(read).unread, 0);
  const late = reduce(read, event({ type: "own-cursor", peer: "bob", delivered: 9n, read: 9n }));
  assert.equal(chatOf(late).own.read, 11n, "a cursor does not go back");
});

test("what was read here is not unread again because the server does not know yet", () => {
  const state = after(listed(100, 80, 20), { type: "seen", peer: "bob", seq: 60n }, listed(100, 80, 20));
  assert.equal(chatOf(state).unread, 40);
});

test("a message that another tab gave up leaves the screen", () => {
  const state = after(sent("x", "hi"), event({ type: "abandoned", messageId: "x", peer: "bob" }));
  assert.deepEqual(chatOf(state).outgoing, []);
});

test("history and live messages meet, in any order", () => {
  const state = after(live(101), live(102), page(41, 100, 102), live(103), page(1, 40, 103), page(90, 103));
  assert.deepEqual(seqs(chatOf(state).messages), seqs(messages(1, 103)));
});

test("a message written here is shown at once and takes its place once, whichever news comes first", () => {
  const written = { type: "written", item: { messageId: "local:1", peer: "bob", text: "hi", writtenAt: new Date(START), status: { kind: "sending" } } } as const;
  const kept = { type: "kept", localId: "local:1", message: { messageId: "x", peer: "bob", text: "hi", writtenAt: new Date(START) } } as const;
  const arrives = event({ type: "message", message: { ...message(3, ME, "hi"), messageId: "x" } });
  const orders = [
    [sent("x", "hi"), kept, stored("x", 3), arrives],
    [kept, sent("x", "hi"), stored("x", 3), arrives],
    [sent("x", "hi"), stored("x", 3), kept, arrives],
    [sent("x", "hi"), kept, arrives, stored("x", 3)],
  ];
  for (const order of orders) {
    let state = after(listed(2, 0, 2), page(1, 2), written);
    assert.deepEqual(chatOf(state).outgoing.map((o) => o.text), ["hi"]);
    for (const action of order) {
      state = reduce(state, action);
      const chat = chatOf(state);
      const shown = chat.outgoing.length + chat.messages.filter((m) => m.messageId === "x").length;
      assert.equal(shown, 1, action.type);
    }
    assert.deepEqual(chatOf(state).outgoing, []);
  }
});

test("what is stored waits for what lies before it", () => {
  let state = after(listed(2, 0, 2), page(1, 2), sent("x", "hi"), stored("x", 4));
  assert.deepEqual(seqs(chatOf(state).messages), [1, 2]);
  assert.equal(chatOf(state).outgoing[0]?.status.kind, "stored");
  state = reduce(state, live(3));
  assert.deepEqual(seqs(chatOf(state).messages), [1, 2, 3, 4]);
  assert.deepEqual(chatOf(state).outgoing, []);
});

test("a refused message stays with its text until it is taken off", () => {
  const refused = event({ type: "rejected", messageId: "x", peer: "bob", text: "hi", reason: "other", field: "", detail: "no" });
  let state = after(sent("x", "hi"), refused);
  assert.deepEqual(chatOf(state).outgoing.map((o) => o.status), [{ kind: "failed", detail: "no" }]);
  state = after(refused);
  assert.equal(chatOf(state).outgoing[0]?.text, "hi", "also where another tab wrote it");
  state = reduce(state, { type: "dropped", peer: "bob", messageId: "x" });
  assert.deepEqual(chatOf(state).outgoing, []);
});

test("the mark of an own message follows the peer's cursor", () => {
  const state = after(page(1, 5), event({ type: "receipt", peer: "bob", delivered: 4n, read: 2n }));
  const marks = [1n, 2n, 3n, 4n, 5n].map((seq) => markOf(chatOf(state), ME, seq));
  assert.deepEqual(marks, ["read", "read", "delivered", "delivered", "stored"]);
  const back = reduce(state, event({ type: "receipt", peer: "bob", delivered: 1n, read: 1n }));
  assert.equal(markOf(chatOf(back), ME, 4n), "delivered");
  assert.equal(markOf({ ...chatOf(back), peer: ME }, ME, 1n), "stored", "notes are read by nobody else");
});

test("opening notes the first unread message; reading it does not move the note", () => {
  const state = after(listed(10, 3, 7), { type: "open", peer: "bob" }, page(1, 10), { type: "seen", peer: "bob", seq: 10n });
  assert.equal(chatOf(state).unreadFrom, 8n);
  assert.equal(chatOf(state).unread, 0);
});

test("a conversation opened before the list is here learns what is unread", () => {
  const state = after({ type: "open", peer: "bob" }, listed(10, 3, 7), page(1, 10));
  assert.equal(chatOf(state).unreadFrom, 8n);
});

test("messages that come while nobody looks are new; while somebody looks they are not", () => {
  const open = [listed(10, 0, 10), { type: "open", peer: "bob" }, page(1, 10)] as const;
  assert.equal(chatOf(after(...open, live(11), live(12))).unreadFrom, 11n);
  assert.equal(chatOf(after(...open, { type: "attentive", attentive: true }, live(11))).unreadFrom, null);
});

test("new messages are announced, what is caught up with is not", () => {
  assert.equal(after(live(1)).announce.id, 1);
  assert.equal(after(live(1, ME)).announce.id, 0);
  assert.equal(after(event({ type: "state", state: { kind: "catching-up" } }), live(1)).announce.id, 0);
});

test("another history leaves only what is not stored", () => {
  const state = after(listed(3, 1, 2), page(1, 3), sent("x", "hi"), event({ type: "history-changed" }));
  assert.deepEqual(chatOf(state).messages, []);
  assert.equal(chatOf(state).head, 0n);
  assert.deepEqual(chatOf(state).outgoing.map((o) => o.text), ["hi"]);
});

test("a reset of presence, or a connection that is lost, leaves nobody online", () => {
  const online = event({ type: "presence", presence: { user: "bob", online: true } });
  const isOnline = (state: State) => state.presence.get("bob")?.online;
  assert.equal(isOnline(after(online, event({ type: "presence-reset" }))), false);
  assert.equal(isOnline(after(online, event({ type: "state", state: { kind: "offline" } }))), false);
  assert.equal(isOnline(after(online, event({ type: "state", state: { kind: "connected" } }))), true);
});

test("the server's clock is learned from a message's acceptance, but not from a duplicate's", () => {
  assert.equal(after(sent("x", "hi"), stored("x", 1)).skewMs, 5000);
  const again = event({ type: "stored", messageId: "x", peer: "bob", seq: 1n, acceptedAt: new Date(START - 9e6), duplicate: true });
  assert.equal(after(sent("x", "hi"), again).skewMs, 0);
});
