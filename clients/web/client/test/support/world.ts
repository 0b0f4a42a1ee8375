/** A client's process, its disk, the link, the server, and the application's memory. */

import assert from "node:assert/strict";

import { create } from "@bufbuild/protobuf";

import type { Event, Message, UserId } from "../../src/api.ts";
import {
  type ConverseRequest,
  ConverseRequestSchema,
  type ConverseResponse,
} from "../../src/generated/duologue/chat/v1/chat_pb.ts";
import { Session } from "../../src/session.ts";
import { fromRecords, newDevice, type Saved, toRecords } from "../../src/session/records.ts";
import { lost, type Numbered } from "../../src/session/types.ts";
import { type Flavour, Server } from "./server.ts";

export const OWN = "alice";
export const PEERS = ["alice", "bob", "carol"] as const;
const OPTIONS = { user: OWN, clientName: "test", clientVersion: "1" };

export class World {
  session = new Session(newDevice("device"), OPTIONS);
  disk: Saved = newDevice("device");
  saving: { readonly mark: number; readonly state: Saved } | undefined;
  now = 0;
  link: number | undefined;
  /** How many sends of one conversation the link carries at a time. */
  perConversation: number;
  up: ConverseRequest[] = [];
  down: ConverseResponse[] = [];
  readonly server = new Server(OWN);
  queue: Numbered[] = [];
  taken = 0;
  sent = new Map<UserId, string[]>();
  #ids = 0;
  stored = new Map<string, bigint>();
  /** Told to be stored in a history that is gone. */
  storedBefore = new Set<string>();
  dealt = new Map<UserId, bigint>();
  shown = new Map<UserId, bigint>();
  undealt: Message | undefined;
  read = new Map<UserId, bigint>();
  peerShown = new Map<UserId, bigint>();

  constructor(perConversation: number) {
    this.perConversation = perConversation;
  }

  at() {
    return { now: this.now, wall: 1_000, dice: 0.3 };
  }

  /** What the driver does after everything that happens. */
  pump(): void {
    this.session.tick(this.at());
    if (this.saving === undefined && this.session.mustSave(this.now)) this.saving = this.session.beginSave();
    this.#follow();
    for (;;) {
      const frame = this.session.nextFrame(this.now);
      if (frame === undefined) break;
      this.#checkKept(frame);
      this.up.push(frame);
    }
    const scan = this.session.nextScan(this.now);
    if (scan) this.session.scanned(scan, this.server.page(scan.peer, scan.afterSeq), this.at());
    for (let item = this.session.nextEvent(); item !== undefined; item = this.session.nextEvent()) {
      this.queue.push(item);
    }
  }

  send(peer: UserId): void {
    const id = `${peer}-${this.#ids}`;
    this.#ids += 1;
    const mark = this.session.send({ id, peer, text: "text", writtenAt: 0 });
    assert.equal(typeof mark, "number");
    this.sent.set(peer, [...(this.sent.get(peer) ?? []), id]);
  }

  peerSends(peer: UserId, sender: UserId): void {
    this.down.push(...this.server.otherSends(peer, sender));
  }

  serverReads(flavour: Flavour): void {
    const frame = this.up.shift();
    if (frame) this.down.push(...this.server.read(frame, flavour));
  }

  clientReads(): void {
    const frame = this.down.shift();
    if (frame) this.session.frame(frame, this.at());
  }

  saveDone(): void {
    if (this.saving === undefined) return;
    const read = fromRecords(toRecords(this.saving.state));
    assert.ok(read);
    this.disk = read;
    this.session.saved(this.saving.mark);
    this.saving = undefined;
  }

  /** Taking an event says that the one before is dealt with. */
  appTakes(): void {
    this.session.handedOver(this.taken, this.now);
    if (this.undealt) this.dealt.set(this.undealt.peer, this.undealt.seq);
    this.undealt = undefined;
    const item = this.queue.shift();
    if (item === undefined) return;
    this.taken = item.number;
    this.#appSees(item.event);
  }

  appReads(peer: UserId): void {
    const seq = this.shown.get(peer);
    if (seq === undefined) return;
    this.session.markRead(peer, seq, this.now);
    this.read.set(peer, seq);
    // Whoever has read a message has dealt with it.
    this.dealt.set(peer, seq);
  }

  /** The first answer that is under way vanishes with the link. */
  cut(): void {
    if (this.link !== undefined) this.session.ended(lost("cut"), this.at());
  }

  restartServer(lostMessages: number): void {
    this.server.restart(lostMessages);
    this.up = [];
    this.down = [];
    this.cut();
  }

  crash(): void {
    this.session = new Session(this.disk, OPTIONS);
    this.link = undefined;
    this.saving = undefined;
    this.up = [];
    this.down = [];
    this.server.hangUp();
    this.queue = [];
    this.taken = 0;
    this.undealt = undefined;
    this.shown.clear();
    // Moves since the last save are the application's to repeat; a send that was not
    // kept yet was never promised.
    this.read.clear();
    this.peerShown.clear();
    const kept = new Set(this.disk.messages.map(({ id }) => id));
    for (const [peer, ids] of this.sent) {
      const isPromised = (id: string) => kept.has(id) || this.stored.has(id) || this.storedBefore.has(id);
      this.sent.set(peer, ids.filter(isPromised));
    }
  }

  runUntilQuiet(): void {
    for (let turn = 0; turn < 3_000; turn += 1) {
      const isBusy = this.up.length + this.down.length + this.queue.length > 0 || this.saving !== undefined;
      for (const step of [() => this.serverReads("store"), () => this.clientReads(), () => this.appTakes(), () => this.saveDone()]) {
        step();
        this.pump();
      }
      if (isBusy) continue;
      if (this.session.pending().length === 0 && this.session.state.kind === "connected") break;
      this.now += 500;
      this.pump();
    }
    this.appTakes();
    this.pump();
  }

  #follow(): void {
    const wanted = this.session.wantedLink;
    if (wanted === this.link) return;
    this.link = wanted;
    this.up = [];
    this.down = [];
    this.server.hangUp();
    if (wanted === undefined) return;
    const value = this.session.hello();
    // The number was on disk before it was used.
    assert.ok(Number(value.connectNumber) <= this.disk.device.connectNumber);
    this.up.push(create(ConverseRequestSchema, { frame: { case: "hello", value } }));
    this.session.opened(this.perConversation, this.at());
  }

  /** A message is on disk before it is sent. */
  #checkKept({ frame }: ConverseRequest): void {
    if (frame.case !== "sendMessage") return;
    const id = frame.value.messageId;
    assert.ok(this.disk.messages.some((it) => it.id === id), `${id} is kept before it is sent`);
    if (this.perConversation > 1) return;
    // One that was found stored meanwhile may still be on its way: it cannot overtake.
    const isUnsettled = ({ frame: it }: ConverseRequest) =>
      it.case === "sendMessage" &&
      it.value.peer === frame.value.peer &&
      it.value.messageId !== undefined &&
      this.session.find(it.value.messageId) !== undefined;
    assert.equal(this.up.filter(isUnsettled).length, 0, "one in flight per conversation");
  }

  #appSees(event: Event): void {
    switch (event.type) {
      case "message":
        return this.#appShows(event.message);
      case "stored": {
        const seq = this.stored.get(event.messageId) ?? event.seq;
        assert.equal(seq, event.seq, "one message has one place");
        this.stored.set(event.messageId, seq);
        return;
      }
      case "history-changed":
        for (const id of this.stored.keys()) this.storedBefore.add(id);
        for (const memory of [this.stored, this.dealt, this.shown, this.read, this.peerShown]) memory.clear();
        this.undealt = undefined;
        return;
      case "receipt": {
        const last = this.peerShown.get(event.peer) ?? 0n;
        assert.ok(event.delivered >= last, "a shown cursor is never lowered");
        this.peerShown.set(event.peer, event.delivered);
        return;
      }
      default:
        assert.notEqual(event.type, "rejected");
    }
  }

  #appShows(message: Message): void {
    const { peer, seq, messageId } = message;
    const [shown, dealt] = [this.shown.get(peer), this.dealt.get(peer)];
    if (shown !== undefined) assert.equal(seq, shown + 1n, "in order, once, without gaps");
    else if (dealt !== undefined) assert.ok(seq <= dealt + 1n, "nothing is skipped by a crash");
    this.shown.set(peer, seq);
    this.undealt = message;
    this.lastShown.push(`${this.server.historyId}/${peer}/${seq}/${messageId}`);
  }

  /** Everything ever shown, for the final comparison with the history. */
  readonly lastShown: string[] = [];
}
