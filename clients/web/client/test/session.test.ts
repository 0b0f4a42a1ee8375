/**
 * The session against a model of a server, over a link that may be cut, lose
 * answers and defer, with a server that may come back with another history, and a
 * client that may crash at any step.
 */

import assert from "node:assert/strict";
import { test } from "node:test";

import { Session } from "../src/session.ts";
import { fromRecords, toRecords } from "../src/session/records.ts";
import { Random } from "./support/random.ts";
import { FLAVOURS } from "./support/server.ts";
import { OWN, PEERS, World } from "./support/world.ts";

const SEEDS = Number(process.env["SEEDS"] ?? 300);
const STEPS = 150;

function step(world: World, random: Random, withRestarts: boolean): void {
  const peer = random.pick(PEERS);
  const other = random.pick(PEERS.slice(1));
  const steps: (readonly [number, () => void])[] = [
    [6, () => world.send(peer)],
    [4, () => world.peerSends(other, other)],
    [2, () => world.peerSends(peer, OWN)],
    [16, () => world.serverReads(random.weighted(FLAVOURS))],
    [16, () => world.clientReads()],
    [8, () => world.appTakes()],
    [8, () => world.saveDone()],
    [2, () => world.appReads(peer)],
    [2, () => world.cut()],
    [1, () => world.crash()],
    [withRestarts ? 0.7 : 0, () => world.restartServer(random.below(5))],
    [4, () => void (world.now += 1 + random.below(1_500))],
  ];
  random.weighted(steps)();
  world.pump();
}

/** Faults have ended: everything becomes true by itself. */
function checkAfterHealing(world: World): void {
  world.runUntilQuiet();
  world.cut();
  world.runUntilQuiet();
  world.now += 2_000;
  world.runUntilQuiet();
  assert.equal(world.session.state.kind, "connected");
  assert.deepEqual(world.session.pending(), [], "everything is settled");
  for (const [peer, sent] of world.sent) {
    const ids = world.server.ownIds(peer);
    assert.equal(new Set(ids).size, ids.length, "none twice");
    const isLost = (id: string) => world.storedBefore.has(id) && !ids.includes(id);
    const expected = sent.filter((id) => !isLost(id));
    assert.deepEqual(new Set(ids), new Set(expected), "once, and nothing else");
    // One that was answered and is lost with its history may come again, late.
    const isSteady = (id: string) => !world.server.lost.has(id);
    assert.deepEqual(ids.filter(isSteady), expected.filter(isSteady), "in order");
    for (const id of sent) assert.ok(world.stored.has(id) || world.storedBefore.has(id), `${id} is told to be stored`);
  }
  for (const [peer, seq] of world.shown) assert.equal(Number(seq), world.server.head(peer), "caught up");
  for (const [peer, seq] of world.read) assert.ok(world.server.cursor(peer).read >= seq, "cursors are repeated");
  checkKept(world);
}

/** What is kept is all that there is. */
function checkKept({ session }: World): void {
  const { state } = session.beginSave();
  const read = fromRecords(toRecords(state));
  assert.ok(read);
  const again = new Session(read, { user: OWN, clientName: "", clientVersion: "" }).beginSave().state;
  const withoutRanks = ({ conversations, ...rest }: typeof state) => ({
    ...rest,
    conversations: conversations.map((it) => ({ ...it, active: 0 })),
  });
  assert.deepEqual(withoutRanks(again), withoutRanks(state));
}

function run(seed: number, perConversation: number, withRestarts: boolean): void {
  const random = new Random(seed);
  const world = new World(perConversation);
  try {
    for (let count = 0; count < STEPS; count += 1) step(world, random, withRestarts);
    checkAfterHealing(world);
  } catch (error) {
    throw new Error(`seed ${seed}: ${error instanceof Error ? error.stack : error}`, { cause: error });
  }
}

test("every message is stored once, in order, and nothing is missed", () => {
  for (let seed = 1; seed <= SEEDS; seed += 1) run(seed, 256, false);
});

test("the same with one message of a conversation in flight, as over gRPC-Web", () => {
  for (let seed = 1; seed <= SEEDS; seed += 1) run(seed, 1, false);
});

test("the same with a server that comes back with another history", () => {
  for (let seed = 1; seed <= SEEDS; seed += 1) run(seed, 256, true);
});
