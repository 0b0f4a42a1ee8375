/**
 * Two clients talk through each way in to a real server, which whoever runs this may
 * stop and start in between:
 *
 *     npm run test:live -- http://127.0.0.1:8080 [--messages 200] [--pause-ms 0] [--ways auto+auto]
 *
 * Tokens come from the server's `POST /dev/token`. Exits with 1 if anything is lost,
 * twice, or out of order.
 */

import assert from "node:assert/strict";
import { parseArgs } from "node:util";

import { WebSocket } from "ws";

import type { Client, ClientOptions, Event, MessageId } from "../src/api.ts";
import { openClient } from "../src/index.ts";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    messages: { type: "string", default: "200" },
    "pause-ms": { type: "string", default: "0" },
    "patience-s": { type: "string", default: "120" },
    ways: { type: "string", default: "websocket+websocket,grpc-web+grpc-web,websocket+grpc-web,auto+auto" },
  },
});
const url = positionals[0] ?? "http://127.0.0.1:8080";
const count = Number(values.messages);
const pauseMs = Number(values["pause-ms"]);
const run = Date.now().toString(36);

/** As a page of the server's own does. */
async function devToken(user: string): Promise<string> {
  const headers = { "content-type": "application/json", origin: new URL(url).origin };
  const answer = await fetch(new URL("/dev/token", url), { method: "POST", headers, body: JSON.stringify({ user }) });
  if (!answer.ok) throw new Error(`/dev/token answered ${answer.status}`);
  return ((await answer.json()) as { token: string }).token;
}

interface Person {
  readonly client: Client;
  readonly seen: { readonly seq: bigint; readonly id: MessageId }[];
  readonly stored: Map<MessageId, bigint>;
  readonly sent: MessageId[];
  connects: number;
}

async function enter(user: string, transport: NonNullable<ClientOptions["transport"]>): Promise<Person> {
  const options = { url, user, transport, webSocket: WebSocket, token: () => devToken(user) };
  const client = await openClient({ ...options, clientName: "live" });
  const person: Person = { client, seen: [], stored: new Map(), sent: [], connects: 0 };
  client.on((event) => note(person, event));
  return person;
}

function note(person: Person, event: Event): void {
  switch (event.type) {
    case "connected":
      person.connects += 1;
      return;
    case "message":
      person.seen.push({ seq: event.message.seq, id: event.message.messageId });
      person.client.markRead(event.message.peer, event.message.seq);
      return;
    case "stored":
      person.stored.set(event.messageId, event.seq);
      return;
    case "rejected":
      throw new Error(`rejected: ${event.reason} ${event.field}`);
    default:
      return;
  }
}

async function talk(person: Person, peer: string): Promise<void> {
  for (let number = 0; number < count; number += 1) {
    person.sent.push((await person.client.send(peer, `${number}`)).messageId);
    if (pauseMs > 0) await new Promise((resolve) => setTimeout(resolve, pauseMs));
  }
}

async function until(what: string, isTrue: () => boolean): Promise<void> {
  const end = Date.now() + Number(values["patience-s"]) * 1_000;
  while (!isTrue()) {
    if (Date.now() > end) throw new Error(`not in time: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

function check(person: Person, other: Person): void {
  const ids = person.seen.map(({ id }) => id);
  assert.deepEqual(person.seen.map(({ seq }) => seq), ids.map((_, index) => BigInt(index + 1)), "in order, without gaps");
  assert.equal(new Set(ids).size, ids.length, "none twice");
  assert.deepEqual(ids, other.seen.map(({ id }) => id), "one order for both");
  assert.deepEqual(ids.filter((id) => person.stored.has(id)), person.sent, "what was sent, in the order it was sent");
}

async function converse(first: NonNullable<ClientOptions["transport"]>, second: typeof first): Promise<void> {
  const [alice, bob] = [`alice-${run}-${first}-${second}`, `bob-${run}-${first}-${second}`];
  const [one, two] = await Promise.all([enter(alice, first), enter(bob, second)]);
  const startedAt = Date.now();
  await Promise.all([talk(one, bob), talk(two, alice)]);
  await until("everybody has seen everything", () => one.seen.length === 2 * count && two.seen.length === 2 * count);
  await until("everything is told to be stored", () => one.stored.size === count && two.stored.size === count);
  const ms = Date.now() - startedAt;
  check(one, two);
  check(two, one);
  const page = await one.client.conversations();
  assert.equal(page.items[0]?.head, BigInt(2 * count), "the history holds no more");
  await Promise.all([one.client.close(), two.client.close()]);
  console.log(`${first} and ${second}: ${2 * count} messages in ${ms} ms, connects ${one.connects} and ${two.connects}`);
}

for (const way of values.ways.split(",")) {
  const [first = "auto", second = first] = way.split("+") as NonNullable<ClientOptions["transport"]>[];
  await converse(first, second);
}
