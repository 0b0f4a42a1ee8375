import assert from "node:assert/strict";
import { test } from "node:test";
import { reduce } from "../../src/model/reduce.ts";
import { rowsOf } from "../../src/model/rows.ts";
import { after, chatOf, event, listed, ME, message, page, START } from "./support.ts";

const ALL = { from: 0n, to: null };
const kinds = (state: ReturnType<typeof after>, span: { from: bigint; to: bigint | null } = ALL) => rowsOf(chatOf(state), ME, span).map((row) => row.kind);

test("every row has a key of its own", () => {
  const mixed = [1, 2, 3, 2000, 2001].map((seq) => message(seq, seq % 2 === 0 ? ME : "bob"));
  const state = after({ type: "page", peer: "bob", messages: mixed, head: 3000n });
  const keys = rowsOf(chatOf(state), ME, ALL).map((row) => row.key);
  assert.equal(new Set(keys).size, keys.length);
});

test("the same id of both users is two rows", () => {
  const both = [{ ...message(1, ME), messageId: "same" }, { ...message(2, "bob"), messageId: "same" }];
  const keys = rowsOf(chatOf(after({ type: "page", peer: "bob", messages: both, head: 2n })), ME, ALL).map((row) => row.key);
  assert.equal(new Set(keys).size, keys.length);
});

test("a gap is a row, between and after what is here", () => {
  const state = after(page(1, 2, 9), page(5, 6, 9));
  assert.deepEqual(kinds(state), ["start", "day", "message", "message", "gap", "message", "message", "gap"]);
  const gaps = rowsOf(chatOf(state), ME, ALL).filter((row) => row.kind === "gap");
  assert.deepEqual(gaps.map((gap) => [gap.after, gap.before]), [[2n, 5n], [6n, 10n]]);
});

test("the first unread message of somebody else is marked once", () => {
  const mixed = [message(1), message(2, ME), message(3), message(4, ME), message(5)];
  const state = after(listed(5, 2, 1), { type: "open", peer: "bob" }, { type: "page", peer: "bob", messages: mixed, head: 5n });
  assert.deepEqual(kinds(state), ["start", "day", "message", "message", "unread", "message", "message", "message"]);
  assert.deepEqual(kinds(state, { from: 4n, to: null }), ["older", "message", "message"]);
});

test("days are those of the server's times, whatever this device's clock says", () => {
  const twoDays = [message(1), { ...message(2), acceptedAt: new Date(START + 86_400_000) }];
  const state = after({ type: "page", peer: "bob", messages: twoDays, head: 2n });
  assert.deepEqual(kinds(state), ["start", "day", "message", "day", "message"]);
});

test("what is being sent stands at the end, and not in the middle of history", () => {
  const pending = event({ type: "pending", message: { messageId: "x", peer: "bob", text: "hi", writtenAt: new Date(0) } });
  const state = after(page(1, 3), pending);
  assert.deepEqual(kinds(state).at(-1), "outgoing");
  assert.ok(!kinds(state, { from: 1n, to: 2n }).includes("outgoing"));
});

test("older messages that come add rows above, and take none away", () => {
  const before = after(page(61, 90));
  const later = reduce(before, page(1, 60, 90));
  const span = { from: 61n, to: null };
  const [was, is] = [before, later].map((state) => rowsOf(chatOf(state), ME, span));
  assert.deepEqual(is?.map((row) => row.kind), was?.map((row) => row.kind));
  const first = (rows: typeof was) => rows?.map((row) => row.kind === "message" && row.first);
  assert.deepEqual(first(is), first(was));
});
