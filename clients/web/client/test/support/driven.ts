/** A session with its world's time, driven by hand. */

import assert from "node:assert/strict";

import type { Event } from "../../src/api.ts";
import type { DeferredReason, GoodbyeReason } from "../../src/generated/duologue/chat/v1/frames_pb.ts";
import { Session } from "../../src/session.ts";
import { newDevice, type Saved } from "../../src/session/records.ts";
import { lost } from "../../src/session/types.ts";
import { down, type Down } from "./server.ts";

const OPTIONS = { user: "alice", clientName: "test", clientVersion: "1" };

export class Driven {
  readonly session: Session;
  readonly events: Event[] = [];
  now = 0;
  wall = 1_000;

  constructor(saved: Partial<Saved> = {}) {
    this.session = new Session({ ...newDevice("device"), ...saved }, OPTIONS);
  }

  at() {
    return { now: this.now, wall: this.wall, dice: 0 };
  }

  save(): Saved {
    const { mark, state } = this.session.beginSave();
    this.session.saved(mark);
    return state;
  }

  drain(): Event[] {
    const fresh: Event[] = [];
    if (this.session.holdsEvents) this.save();
    for (let item = this.session.nextEvent(); item; item = this.session.nextEvent()) fresh.push(item.event);
    this.events.push(...fresh);
    return fresh;
  }

  /** Opens the link; returns its Hello. */
  connect() {
    this.session.tick(this.at());
    assert.equal(this.session.wantedLink, undefined, "the number is saved first");
    this.save();
    assert.notEqual(this.session.wantedLink, undefined);
    const hello = this.session.hello();
    this.session.opened(256, this.at());
    return hello;
  }

  open(historyId = "h-1"): this {
    this.connect();
    this.give({ case: "welcome", value: { user: "alice", historyId, heartbeatInterval: { seconds: 20n } } });
    this.give({ case: "caughtUp", value: { syncToken: "token-1" } });
    this.drain();
    return this;
  }

  /** After a cut, on the next link. */
  reconnected(): this {
    this.session.ended(lost("cut"), this.at());
    this.now += 1_000;
    this.connect();
    this.give({ case: "welcome", value: { user: "alice", historyId: "h-1" } });
    return this;
  }

  give(frame: NonNullable<Down>): void {
    this.session.frame(down(frame), this.at());
  }

  /** Of a call beside the stream. */
  answer(frame: NonNullable<Down>): void {
    this.session.answer(down(frame), this.at());
  }

  goodbye(reason: GoodbyeReason, seconds?: bigint): void {
    const retryAfter = seconds === undefined ? {} : { retryAfter: { seconds } };
    this.give({ case: "goodbye", value: { reason, ...retryAfter } });
  }

  send(id: string): void {
    assert.equal(typeof this.session.send({ id, peer: "bob", text: "text", writtenAt: 0 }), "number");
    this.save();
  }

  /** The ids and after_seqs of what goes out now. */
  sends(): [string, number][] {
    const sends: [string, number][] = [];
    for (let frame = this.session.nextFrame(this.now); frame; frame = this.session.nextFrame(this.now)) {
      const { case: kind, value } = frame.frame;
      if (kind === "sendMessage") sends.push([value.messageId ?? "", Number(value.afterSeq)]);
    }
    return sends;
  }

  deliver(sender: string, messageId: string, seq: bigint): void {
    const recipient = sender === "alice" ? "bob" : "alice";
    this.give({ case: "messageDelivered", value: { envelope: { sender, recipient, messageId, seq } } });
  }

  defer(messageId: string, reason: DeferredReason, seconds?: bigint): void {
    const retryAfter = seconds === undefined ? {} : { retryAfter: { seconds } };
    this.give({ case: "deferred", value: { messageId, peer: "bob", reason, ...retryAfter } });
  }
}
