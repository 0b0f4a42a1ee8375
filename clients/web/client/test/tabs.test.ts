/** Several tabs of one user: elected, closed, killed, frozen and woken again. */

import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";

import { IDBFactory } from "fake-indexeddb";

import type { Client, Event } from "../src/api.ts";
import { OWNER_PROBE_MS, OWNER_TIMEOUT_MS } from "../src/limits.ts";
import { openTab } from "../src/tabs.ts";
import { Browser, type Tab } from "./support/browser.ts";
import { Clock, environmentOf, settle } from "./support/clock.ts";
import { Network, throughTab } from "./support/network.ts";
import { Random } from "./support/random.ts";
import { Server } from "./support/server.ts";

const SEEDS = Number(process.env["SEEDS"] ?? 40);

let clock: Clock;
let network: Network;
let browser: Browser;

beforeEach(() => {
  globalThis.indexedDB = new IDBFactory();
  clock = new Clock();
  network = new Network(new Server("alice"));
  browser = new Browser();
});

interface Opened {
  readonly tab: Tab;
  readonly client: Client;
  readonly events: Event[];
}

async function open(): Promise<Opened> {
  const tab = browser.tab();
  const { locks, channel } = tab;
  const environment = environmentOf(clock, tab);
  const opening = openTab(
    { url: "http://unused", user: "alice", token: () => "token" },
    { locks, channel, client: { environment, transport: throughTab(network, tab), chat: network.chat } },
  );
  const client = await opening;
  const events: Event[] = [];
  client.on((event) => tab.isAlive && events.push(event));
  await settle();
  return { tab, client, events };
}

const seqs = ({ events }: Opened) =>
  events.flatMap((event) => (event.type === "message" ? [Number(event.message.seq)] : []));
const upTo = (count: number) => Array.from({ length: count }, (_, index) => index + 1);

test("one tab owns the connection, the other is a full client that follows", async () => {
  const [owner, follower] = [await open(), await open()];
  assert.equal(network.opened, 1);
  assert.equal(follower.client.state.kind, "connected");
  assert.deepEqual(follower.client.durability, { durable: true });
  assert.ok(follower.events.some(({ type }) => type === "connected"));
  const { messageId } = await follower.client.send("bob", "by the follower");
  await settle();
  network.push(network.server.otherSends("bob", "bob"));
  await settle();
  assert.deepEqual(network.server.ownIds("bob"), [messageId]);
  assert.deepEqual([seqs(owner), seqs(follower)], [[1, 2], [1, 2]]);
  follower.client.markRead("bob", 2n);
  await clock.pass(1_000);
  assert.equal(network.server.cursor("bob").read, 2n);
});

test("what is read in one tab is read in the others", async () => {
  const [owner, follower] = [await open(), await open()];
  network.push(network.server.otherSends("bob", "bob"));
  network.push(network.server.otherSends("bob", "bob"));
  await settle();
  const reads = ({ events }: Opened) => events.flatMap((event) => (event.type === "own-cursor" ? [Number(event.read)] : []));
  owner.client.markRead("bob", 1n);
  follower.client.markRead("bob", 2n);
  follower.client.markRead("bob", 2n);
  await settle();
  assert.deepEqual([reads(owner), reads(follower)], [[1, 2], [1, 2]]);
});

test("a follower's pending messages are those of the owner; either gives them up", async () => {
  const [owner, follower] = [await open(), await open()];
  network.isDown = true;
  network.cut();
  const { messageId } = await owner.client.send("bob", "waits");
  await settle();
  assert.deepEqual(follower.client.pending().map((it) => it.messageId), [messageId]);
  await follower.client.abandon(messageId);
  await settle();
  assert.deepEqual([owner.client.pending(), follower.client.pending()], [[], []]);
  const gone = ({ events }: Opened) => events.flatMap((event) => (event.type === "abandoned" ? [event.messageId] : []));
  assert.deepEqual([gone(owner), gone(follower)], [[messageId], [messageId]], "both pages take it off the screen");
});

test("when the owner is closed or killed, the next tab takes over at once", async () => {
  for (const end of [({ client }: Opened) => void client.close(), ({ tab }: Opened) => tab.kill()]) {
    const [owner, follower] = [await open(), await open()];
    end(owner);
    await clock.pass(1_000);
    assert.equal(follower.client.state.kind, "connected");
    await follower.client.send("carol", "goes on");
    await settle();
    await follower.client.close();
    await clock.pass(10);
  }
  assert.equal(network.server.ownIds("carol").length, 2);
});

test("what is read while no tab owns is read all the same", async () => {
  const [owner, follower, third] = [await open(), await open(), await open()];
  network.push(network.server.otherSends("bob", "bob"));
  network.push(network.server.otherSends("bob", "bob"));
  await settle();
  owner.tab.kill();
  follower.client.markRead("bob", 1n);
  third.client.markRead("bob", 2n);
  await clock.pass(1_000);
  assert.equal(network.server.cursor("bob").read, 2n);
  follower.tab.kill();
  await clock.pass(2_000);
  assert.equal(third.client.state.kind, "connected");
});

test("a closed tab whose last messages wait is replaced for good", async () => {
  const [closing, next] = [await open(), await open()];
  network.losesAnswers = true;
  await closing.client.send("bob", "last words");
  // Shortly before the other asks for a sign of life.
  await clock.pass(OWNER_PROBE_MS - 100);
  const closed = closing.client.close();
  await clock.pass(2 * OWNER_TIMEOUT_MS);
  network.losesAnswers = false;
  await closed;
  for (let turn = 0; turn < 20; turn += 1) {
    assert.equal(browser.held?.tab, next.tab, `after ${turn} s`);
    assert.deepEqual(browser.queue, [], "the closed tab does not come back");
    await clock.pass(1_000);
  }
  assert.equal(next.client.state.kind, "connected");
  assert.equal(network.server.ownIds("bob").length, 1);
});

test("a send that the owner did not answer is the next owner's, once", async () => {
  const [owner, follower] = [await open(), await open()];
  owner.tab.freeze();
  let isKept = false;
  const sent = follower.client.send("bob", "who keeps this?").then((message) => {
    isKept = true;
    return message;
  });
  await settle();
  assert.equal(isKept, false, "nobody has kept it");
  owner.tab.kill();
  await clock.pass(1_000);
  const { messageId } = await sent;
  await settle();
  assert.deepEqual(network.server.ownIds("bob"), [messageId]);
});

test("an owner that is frozen is replaced; woken again it follows, and harms nothing", async () => {
  const [frozen, next] = [await open(), await open()];
  const first = await frozen.client.send("bob", "before");
  await settle();
  frozen.tab.freeze();
  const sent = next.client.send("bob", "meanwhile");
  await clock.pass(20_000);
  const second = await sent;
  assert.equal(next.client.state.kind, "connected");
  network.push(network.server.otherSends("bob", "bob"));
  await settle();
  frozen.tab.thaw();
  await clock.pass(2_000);
  const third = await frozen.client.send("bob", "after");
  await clock.pass(2_000);
  assert.deepEqual(network.server.ownIds("bob"), [first, second, third].map((it) => it.messageId));
  assert.deepEqual(seqs(next), upTo(4));
  assert.deepEqual(seqs(frozen), upTo(4), "what was missed is fetched");
  assert.ok(!frozen.events.some((event) => event.type === "state" && event.state.kind === "superseded"));
});

test("a message is told once, although the new owner's store knows less than was shown", async () => {
  const [owner, follower] = [await open(), await open()];
  for (let count = 0; count < 5; count += 1) network.push(network.server.otherSends("bob", "bob"));
  await settle();
  // Progress is saved a second later.
  owner.tab.kill();
  await clock.pass(2_000);
  network.push(network.server.otherSends("bob", "bob"));
  await settle();
  assert.deepEqual(seqs(follower), upTo(6));
});

test("whatever happens to tabs, every message that was kept is stored once, and shown in order", async () => {
  for (let seed = 1; seed <= SEEDS; seed += 1) {
    try {
      globalThis.indexedDB = new IDBFactory();
      clock = new Clock();
      network = new Network(new Server("alice"));
      browser = new Browser();
      await chaos(new Random(seed));
    } catch (error) {
      throw new Error(`seed ${seed}: ${error instanceof Error ? error.stack : error}`, { cause: error });
    }
  }
});

async function chaos(random: Random): Promise<void> {
  const tabs: Opened[] = [await open(), await open(), await open()];
  const kept: string[] = [];
  const frozen = new Set<Opened>();
  const steps: (readonly [number, () => unknown])[] = [
    [8, () => void write(random.pick(tabs.filter((it) => !frozen.has(it))), kept)],
    [4, () => network.push(network.server.otherSends("bob", "bob"))],
    [2, () => network.cut()],
    [1, () => kill(tabs, frozen, random)],
    // It is there when there is an owner, which may take time.
    [1, () => void (tabs.length < 4 && open().then((opened) => tabs.push(opened)))],
    [1, () => freeze(tabs, frozen, random)],
    [2, () => thaw(frozen)],
    [4, () => clock.pass(random.below(3_000))],
    [4, () => settle(random.below(6))],
  ];
  for (let count = 0; count < 40; count += 1) await random.weighted(steps)();
  while (frozen.size > 0) thaw(frozen);
  // Longer than it takes to notice that a link is dead.
  await clock.pass(60_000);
  // The model sends no heartbeats: a link is replaced now and then.
  const isConnected = () => tabs.every(({ client }) => client.state.kind === "connected");
  for (let count = 0; count < 5 && !isConnected(); count += 1) await clock.pass(500);
  const ids = network.server.ownIds("bob");
  assert.equal(new Set(ids).size, ids.length, "none twice");
  for (const id of kept) assert.ok(ids.includes(id), "what was kept is stored");
  for (const opened of tabs) {
    const shown = seqs(opened);
    const first = shown[0] ?? 1;
    assert.deepEqual(shown, shown.map((_, index) => first + index), "in order, once, without gaps");
    if (shown.length > 0) assert.equal(shown.at(-1), network.server.head("bob"), "nothing is missed");
    assert.equal(opened.client.state.kind, "connected");
  }
  for (const { client } of tabs) void client.close();
  await clock.pass(6_000);
}

async function write({ tab, client }: Opened, kept: string[]): Promise<void> {
  try {
    const { messageId } = await client.send("bob", "text");
    if (tab.isAlive) kept.push(messageId);
  } catch (error) {
    // A dead tab's promise is nobody's.
    if (tab.isAlive && client.state.kind !== "closed") throw error;
  }
}

/** One of them goes on living, awake. */
function kill(tabs: Opened[], frozen: Set<Opened>, random: Random): void {
  const index = random.below(tabs.length);
  if (tabs.every((it, at) => at === index || frozen.has(it))) return;
  const [killed] = tabs.splice(index, 1);
  if (killed === undefined) return;
  frozen.delete(killed);
  killed.tab.kill();
}

function freeze(tabs: Opened[], frozen: Set<Opened>, random: Random): void {
  const opened = random.pick(tabs);
  if (frozen.size + 1 >= tabs.length) return;
  frozen.add(opened);
  opened.tab.freeze();
}

function thaw(frozen: Set<Opened>): void {
  const [first] = frozen;
  if (first === undefined) return;
  frozen.delete(first);
  first.tab.thaw();
}
