/** The client around the session: what is kept, sent and told, with IndexedDB. */

import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";

import { Code, ConnectError } from "@connectrpc/connect";
import { IDBFactory } from "fake-indexeddb";

import type { ClientOptions, ClientStore, Event } from "../src/api.ts";
import { type DirectClient, openDirect } from "../src/client.ts";
import { DuologueError } from "../src/errors.ts";
import { HEARTBEAT_INTERVAL_MS, HEARTBEAT_SLACK_MS, OPEN_TIMEOUT_MS } from "../src/limits.ts";
import { IndexedDbStore } from "../src/store/indexedDb.ts";
import { MemoryStore } from "../src/store/memory.ts";
import { Clock, environmentOf, settle } from "./support/clock.ts";
import { Network } from "./support/network.ts";
import { down, Server } from "./support/server.ts";

let clock: Clock;
let network: Network;

beforeEach(() => {
  globalThis.indexedDB = new IDBFactory();
  clock = new Clock();
  network = new Network(new Server("alice"));
});

const OPTIONS: ClientOptions = { url: "http://unused", user: "alice", token: () => "token" };

async function open(options: Partial<ClientOptions> = {}): Promise<{ client: DirectClient; events: Event[] }> {
  const parts = { environment: environmentOf(clock), transport: network, chat: network.chat };
  const client = await openDirect({ ...OPTIONS, ...options }, parts);
  const events: Event[] = [];
  client.on((event) => events.push(event));
  await settle();
  return { client, events };
}

const types = (events: readonly Event[]) => events.filter(({ type }) => type !== "state").map(({ type }) => type);

test("a message is pending, then stored and in its place", async () => {
  const { client, events } = await open();
  assert.equal(client.state.kind, "connected");
  const { messageId } = await client.send("bob", "hello");
  await settle();
  assert.deepEqual(types(events), ["connected", "caught-up", "pending", "stored", "message"]);
  assert.deepEqual(network.server.ownIds("bob"), [messageId]);
  assert.deepEqual(client.pending(), []);
});

test("a message written offline is sent after the page was closed and opened again, once", async () => {
  network.isDown = true;
  const before = await open();
  const { messageId } = await before.client.send("bob", "from a tunnel");
  before.client.drop();
  network.isDown = false;
  for (let life = 0; life < 2; life += 1) {
    const { client } = await open();
    await clock.pass(1_000);
    assert.deepEqual(network.server.ownIds("bob"), [messageId]);
    assert.deepEqual(client.pending(), []);
    client.drop();
  }
});

test("an answer that is lost makes no second message, although the page is closed", async () => {
  const before = await open();
  network.losesAnswers = true;
  const { messageId } = await before.client.send("bob", "once");
  await settle();
  assert.deepEqual(network.server.ownIds("bob"), [messageId]);
  before.client.drop();
  network.losesAnswers = false;
  const { events } = await open();
  await clock.pass(1_000);
  assert.deepEqual(network.server.ownIds("bob"), [messageId]);
  assert.ok(events.some((event) => event.type === "stored" && event.messageId === messageId));
});

test("what was taken is not told again after a reload, and what was missed is", async () => {
  const { client, events } = await open();
  network.push(network.server.otherSends("bob", "bob"));
  await clock.pass(2_000);
  assert.equal(types(events).filter((type) => type === "message").length, 1);
  client.drop();
  network.server.hangUp();
  network.server.otherSends("bob", "bob");
  const again = await open();
  const messages = again.events.flatMap((event) => (event.type === "message" ? [event.message.seq] : []));
  assert.deepEqual(messages, [2n]);
  await clock.pass(1_000);
  assert.equal(network.server.cursor("bob").delivered, 2n, "the delivered cursor follows what was taken");
});

test("events wait for who listens, none is dropped, and two iterators see all", async () => {
  const parts = { environment: environmentOf(clock), transport: network, chat: network.chat };
  const client = await openDirect(OPTIONS, parts);
  await settle();
  for (let count = 0; count < 400; count += 1) network.push(network.server.otherSends("bob", "bob"));
  await settle();
  const seen = await Promise.all([take(client, 400), take(client, 400)]);
  const all = Array.from({ length: 400 }, (_, index) => BigInt(index + 1));
  assert.deepEqual(seen, [all, all]);
});

async function take(client: DirectClient, count: number): Promise<bigint[]> {
  const seqs: bigint[] = [];
  for await (const event of client) {
    if (event.type === "message") seqs.push(event.message.seq);
    if (seqs.length === count) break;
  }
  return seqs;
}

test("close waits for what is under way, keeps the rest, and ends iterators", async () => {
  const { client } = await open();
  const ended = (async () => {
    for await (const event of client) void event;
  })();
  const sent = client.send("bob", "last words");
  const closed = client.close();
  await sent;
  await clock.pass(1);
  await closed;
  await ended;
  assert.equal(network.server.ownIds("bob").length, 1);
  assert.equal(client.state.kind, "closed");
  await assert.rejects(client.send("bob", "too late"), DuologueError);
});

test("a send is refused with the field at fault, and no text in the error", async () => {
  const { client } = await open();
  const refused = async (peer: string, text: string) => {
    const error = await client.send(peer, text).catch((it: unknown) => it);
    assert.ok(error instanceof DuologueError);
    assert.ok(text === "" || !JSON.stringify([error.message, error]).includes(text));
    return [error.code, error.field];
  };
  assert.deepEqual(await refused("bob", ""), ["invalid_argument", "body.text"]);
  assert.deepEqual(await refused("bob", "ä".repeat(4_097)), ["invalid_argument", "body.text"]);
  assert.deepEqual(await refused("b b", "secret"), ["invalid_argument", "peer"]);
});

test("a store that fails stops the client; nothing that was not kept is sent", async () => {
  const memory = new MemoryStore();
  let isFull = false;
  const store: ClientStore = {
    durable: true,
    read: () => memory.read(),
    write: (changes) => (isFull ? Promise.reject(new DOMException("secret", "QuotaExceededError")) : memory.write(changes)),
    close: () => undefined,
  };
  const { client } = await open({ store });
  isFull = true;
  const error = await client.send("bob", "hello").catch((it: unknown) => it);
  assert.ok(error instanceof DuologueError && error.reason === "NOT_SAVED");
  assert.equal(client.state.kind, "stopped");
  assert.deepEqual(client.pending(), []);
  isFull = false;
  client.reconnect();
  await clock.pass(1_000);
  const { messageId } = await client.send("bob", "again");
  await settle();
  assert.deepEqual(network.server.ownIds("bob"), [messageId]);
});

test("a message is told to be given up once that is kept, and not before", async () => {
  network.isDown = true;
  const memory = new MemoryStore();
  let isFull = false;
  const store: ClientStore = {
    durable: true,
    read: () => memory.read(),
    write: (changes) => (isFull ? Promise.reject(new Error("full")) : memory.write(changes)),
    close: () => undefined,
  };
  const { client, events } = await open({ store });
  const [one, two] = [await client.send("bob", "one"), await client.send("bob", "two")];
  await client.abandon(one.messageId);
  isFull = true;
  await assert.rejects(client.abandon(two.messageId));
  await settle();
  const gone = events.flatMap((event) => (event.type === "abandoned" ? [event.messageId] : []));
  assert.deepEqual(gone, [one.messageId]);
});

test("a second owner of the store makes the first one stop, without a write", async () => {
  const first = await open();
  const second = await open();
  await assert.rejects(first.client.send("bob", "by the first"), DuologueError);
  assert.equal(first.client.state.kind, "superseded");
  const { messageId } = await second.client.send("bob", "by the second");
  await settle();
  assert.deepEqual(network.server.ownIds("bob"), [messageId]);
});

test("where IndexedDB is forbidden, memory serves, and the client says why", async () => {
  globalThis.indexedDB = { open: () => { throw new DOMException("no", "SecurityError"); } } as unknown as IDBFactory;
  const { client } = await open();
  assert.deepEqual(client.durability, { durable: false, reason: "IndexedDB cannot be used (SecurityError)" });
  assert.equal(client.state.kind, "connected");
});

test("a write is all or nothing", async () => {
  const store = await IndexedDbStore.open("alice");
  await store.write(new Map<string, unknown>([["a", 1], ["b", 2]]));
  // A function cannot be stored.
  await assert.rejects(store.write(new Map<string, unknown>([["a", 3], ["b", () => 0]])));
  assert.deepEqual(await store.read(), new Map([["a", 1], ["b", 2]]));
  await store.write(new Map([["a", undefined]]));
  assert.deepEqual(await store.read(), new Map([["b", 2]]));
});

test("a store that fails, or hangs, is not asked again without end", async () => {
  const memory = new MemoryStore();
  let write = () => Promise.resolve();
  const store: ClientStore = {
    durable: true,
    read: () => memory.read(),
    write: async (changes) => {
      await write();
      return memory.write(changes);
    },
    close: () => undefined,
  };
  for (const how of [() => Promise.reject(new Error("full")), () => new Promise<void>(() => undefined)]) {
    write = () => Promise.resolve();
    const { client } = await open({ store });
    network.push(network.server.otherSends("bob", "bob"));
    await clock.pass(2_000);
    write = how;
    client.send("bob", "not kept").catch(() => undefined);
    network.push(network.server.otherSends("bob", "bob"));
    await settle();
    client.markRead("bob", 1n);
    const before = clock.fired;
    await clock.pass(20_000);
    assert.ok(clock.fired - before < 20, `${clock.fired - before} timers in 20 s`);
    client.drop();
  }
});

test("a token that never comes holds no look through a conversation back for good", async () => {
  network.isDown = true;
  let looks = 0;
  const { chat } = network;
  const listMessages: typeof chat.listMessages = (request) => {
    looks += 1;
    return looks === 1 ? Promise.reject(new ConnectError("expired", Code.Unauthenticated)) : chat.listMessages(request);
  };
  const parts = { environment: environmentOf(clock), transport: network, chat: { ...chat, listMessages } };
  const token = ({ refused }: { refused: boolean }) => (refused ? new Promise<string>(() => undefined) : "token");
  const client = await openDirect({ ...OPTIONS, token }, parts);
  client.on(() => undefined);
  const { messageId } = await client.send("bob", "from a tunnel");
  for (let count = 0; count < 300; count += 1) network.server.otherSends("bob", "bob");
  network.isDown = false;
  await clock.pass(10_000);
  assert.deepEqual([looks, network.server.ownIds("bob")], [1, []], "it is looked for first");
  await clock.pass(OPEN_TIMEOUT_MS);
  assert.ok(looks > 1);
  assert.deepEqual(network.server.ownIds("bob"), [messageId]);
});

test("a link that does not open in time is dropped", async () => {
  const dropped: number[] = [];
  const open_ = network.open;
  let count = 0;
  network.open = () => {
    const number = count++;
    return { canSend: false, send: () => undefined, finish: () => undefined, drop: () => void dropped.push(number) };
  };
  const { client } = await open();
  await clock.pass(OPEN_TIMEOUT_MS);
  assert.deepEqual([count, dropped], [1, [0]]);
  network.open = open_;
  await clock.pass(2_000);
  assert.equal(client.state.kind, "connected");
});

test("a frame that is there is heard before silence is judged", async () => {
  const { client } = await open();
  const { opened } = network;
  const heartbeat = () => network.push([down({ case: "heartbeat", value: {} })]);
  // Its turn comes with that of the deadline, as after a stall.
  clock.after(HEARTBEAT_INTERVAL_MS + HEARTBEAT_SLACK_MS, heartbeat);
  heartbeat();
  await clock.pass(HEARTBEAT_INTERVAL_MS + HEARTBEAT_SLACK_MS + 1_000);
  assert.deepEqual([client.state.kind, network.opened], ["connected", opened]);
});

test("the same token refused twice stops the client; a new one goes on", async () => {
  const tokens = ["one", "one", "two"];
  const asked: boolean[] = [];
  const refuse = network.open;
  network.open = (hello, token, handlers) => {
    if (token === "two") return refuse(hello, token, handlers);
    setImmediate(() => handlers.ended({ kind: "unauthenticated", cause: "the token has expired" }));
    return { canSend: false, send: () => undefined, finish: () => undefined, drop: () => undefined };
  };
  const token = ({ refused }: { refused: boolean }) => {
    asked.push(refused);
    return tokens.shift() ?? "two";
  };
  const { client } = await open({ token });
  await clock.pass(1_000);
  assert.deepEqual(client.state, { kind: "stopped", reason: "unauthenticated", detail: "the token has expired" });
  client.reconnect();
  await clock.pass(1_000);
  assert.equal(client.state.kind, "connected");
  assert.deepEqual(asked, [false, true, false], "by then the server may take what it has refused");
});
