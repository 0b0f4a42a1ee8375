import assert from "node:assert/strict";
import { test } from "node:test";
import { conversationsOf, find, initials, nameProblem, peopleOf } from "../../src/model/lists.ts";
import { dayName, noticeOf, shortTime } from "../../src/model/words.ts";
import { after, event, message, START } from "./support.ts";

const online = (user: string, is = true) => event({ type: "presence", presence: { user, online: is } });

test("conversations stand by recency", () => {
  const at = (peer: string, seq: number) => event({ type: "message", message: { ...message(seq), peer } });
  const state = after(at("old", 1), at("new", 9), at("middle", 5));
  assert.deepEqual(conversationsOf(state).map((chat) => chat.peer), ["new", "middle", "old"]);
});

test("a conversation that was only opened is not listed", () => {
  assert.deepEqual(conversationsOf(after({ type: "open", peer: "bob" })), []);
});

test("people who are online come first; oneself is not among them", () => {
  const state = after(online("zoe"), online("amy", false), online("Bea"), online("ada"));
  assert.deepEqual(peopleOf(state).map((p) => p.user), ["Bea", "zoe", "amy"]);
});

test("a search finds by part, begins before inside, and offers a new name", () => {
  const state = after(online("marta"), online("tamar"), online("bo"));
  assert.deepEqual(find(state, "mar"), { people: [{ user: "marta", online: true }, { user: "tamar", online: true }], fresh: "mar", problem: null });
  assert.equal(find(state, "marta").fresh, null);
  assert.equal(find(state, "a b").fresh, null);
  assert.notEqual(find(state, "a b").problem, null);
});

test("names follow the contract's rule", () => {
  for (const good of ["a", "a.b_c-d@e+f", "x".repeat(64)]) assert.equal(nameProblem(good), null);
  for (const bad of ["", "x".repeat(65), "a b", "é", "<b>", "\u202Ea"]) assert.notEqual(nameProblem(bad), null);
});

test("initials are letters, whatever the name is", () => {
  assert.deepEqual(["marta.olsen", "bo", "<b>x", "\u202Eevil", "...", "42"].map(initials), ["MO", "B", "B", "E", "", "4"]);
});

test("days are named from the server's now", () => {
  const now = new Date(2026, 10, 25, 0, 30);
  const at = (day: number, hour = 12) => new Date(2026, 10, day, hour);
  assert.equal(dayName(at(25, 0), now), "Today");
  assert.equal(dayName(at(24, 23), now), "Yesterday");
  assert.equal(dayName(at(23), now), "Monday");
  assert.match(dayName(at(18), now), /^Wednesday,? 18 November$/);
  assert.match(dayName(new Date(2025, 10, 18), now), /^Tuesday,? 18 November 2025$/);
  assert.match(dayName(at(27), now), /^Friday,? 27 November$/);
  assert.equal(shortTime(at(24), now), "Yesterday");
});

test("every state of the connection but being connected says something", () => {
  const states = [
    { kind: "connecting", attempt: 1 }, { kind: "catching-up" }, { kind: "waiting", retryAt: START, cause: "x" }, { kind: "offline" },
    { kind: "superseded" }, { kind: "stopped", reason: "unauthenticated", detail: "" }, { kind: "stopped", reason: "refused", detail: "" }, { kind: "closed" },
  ] as const;
  const texts = states.map((state) => noticeOf(state)?.text);
  assert.equal(new Set(texts).size, states.length);
  assert.ok(texts.every((text) => text !== undefined && text !== ""));
  assert.equal(noticeOf({ kind: "connected" }), null);
});
