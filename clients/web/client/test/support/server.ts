/** A server that keeps the contract, as simply as can be. */

import assert from "node:assert/strict";

import { create, type MessageInitShape } from "@bufbuild/protobuf";

import type { Cursor, UserId } from "../../src/api.ts";
import { cursor, furthest, NO_CURSOR } from "../../src/cursor.ts";
import {
  type ConverseRequest,
  type ConverseResponse,
  ConverseResponseSchema,
  type ListMessagesResponse,
  ListMessagesResponseSchema,
} from "../../src/generated/duologue/chat/v1/chat_pb.ts";
import {
  type AdvanceCursor,
  DeferredReason,
  GoodbyeReason,
  type Hello,
  type SendMessage,
} from "../../src/generated/duologue/chat/v1/frames_pb.ts";
import { type Envelope, EnvelopeSchema } from "../../src/generated/duologue/chat/v1/model_pb.ts";

/** How far back an earlier copy is looked for. */
const MAX_SEARCH = 4;
/** Messages on a page of `ListMessages`. */
const PAGE = 3;
/** A token finds this many messages from before it again. */
const SLACK = 2;

/** What becomes of one send. */
export type Flavour =
  | "store"
  /** Stored; the own envelope is delivered too, before the answer or after it. */
  | "deliver-then-answer"
  | "answer-then-deliver"
  | "defer"
  /** The store's answer is unknown; the message lands nevertheless. */
  | "defer-but-land"
  /** Rate limited, with a delay. */
  | "limit";

export const FLAVOURS: readonly (readonly [number, Flavour])[] = [
  [6, "store"],
  [2, "deliver-then-answer"],
  [2, "answer-then-deliver"],
  [2, "defer"],
  [2, "defer-but-land"],
  [1, "limit"],
];

interface Slot {
  readonly id: string;
  readonly sender: UserId;
  /** The place among all messages of all conversations. */
  readonly accepted: number;
}

interface Open {
  readonly shown: Map<UserId, number>;
  readonly deferred: Map<UserId, string[]>;
}

export type Down = MessageInitShape<typeof ConverseResponseSchema>["frame"];

export function down(frame: NonNullable<Down>): ConverseResponse {
  return create(ConverseResponseSchema, { frame });
}

export class Server {
  readonly own: UserId;
  historyId = "h-0";
  /** What was stored in a history that is gone, and not in the copy. */
  readonly lost = new Set<string>();
  #histories = 0;
  #conversations = new Map<UserId, Slot[]>();
  #cursors = new Map<UserId, Cursor>();
  #accepted = 0;
  #open: Open | undefined;
  #lastConnect = 0n;

  constructor(own: UserId) {
    this.own = own;
  }

  hangUp(): void {
    this.#open = undefined;
  }

  /** Put back to a copy from earlier: the newest messages of every conversation are gone. */
  restart(lostMessages: number): void {
    this.#histories += 1;
    this.historyId = `h-${this.#histories}`;
    this.#open = undefined;
    this.#cursors.clear();
    for (const [peer, slots] of this.#conversations) {
      const kept = Math.max(slots.length - lostMessages, 0);
      for (const { id } of slots.slice(kept)) this.lost.add(id);
      this.#conversations.set(peer, slots.slice(0, kept));
    }
  }

  head(peer: UserId): number {
    return this.#slots(peer).length;
  }

  at(peer: UserId, seq: bigint): string | undefined {
    return this.#slots(peer)[Number(seq) - 1]?.id;
  }

  /** The ids of this device: another device's begin with "x-". */
  ownIds(peer: UserId): string[] {
    const own = this.#slots(peer).filter((slot) => slot.sender === this.own);
    return own.map(({ id }) => id).filter((id) => !id.startsWith("x-"));
  }

  cursor(peer: UserId): Cursor {
    return this.#cursors.get(peer) ?? NO_CURSOR;
  }

  /** A message that does not come from this device. */
  otherSends(peer: UserId, sender: UserId): ConverseResponse[] {
    // A peer's ids may be those of this device: they are another sender's.
    const id = sender === this.own ? `x-${this.#accepted}` : `${peer}-${this.head(peer)}`;
    this.#put(peer, id, sender);
    return this.#deliver(peer);
  }

  /** `ListMessages`, forward. */
  page(peer: UserId, after: bigint): ListMessagesResponse {
    const skip = Number(after);
    const slots = this.#slots(peer).slice(skip, skip + PAGE);
    const messages = slots.map((slot, index) => this.#envelope(peer, skip + index, slot));
    return create(ListMessagesResponseSchema, { messages, head: BigInt(this.head(peer)) });
  }

  read({ frame }: ConverseRequest, flavour: Flavour): ConverseResponse[] {
    switch (frame.case) {
      case "hello":
        return this.#hello(frame.value);
      case "sendMessage":
        return this.#open === undefined ? [] : this.#send(frame.value, flavour);
      case "abandon":
        for (const list of this.#open?.deferred.values() ?? []) remove(list, frame.value.messageId);
        return [];
      case "advanceCursor":
        return this.#open === undefined ? [] : [this.#advance(frame.value)];
      case "ping":
        return [down({ case: "pong", value: {} })];
      default:
        throw new Error("a client sends known frames");
    }
  }

  #slots(peer: UserId): Slot[] {
    return this.#conversations.get(peer) ?? [];
  }

  #hello(hello: Hello): ConverseResponse[] {
    const number = hello.connectNumber ?? 0n;
    assert.ok(number > this.#lastConnect, "connect numbers rise");
    this.#lastConnect = number;
    if (hello.historyId !== "" && hello.historyId !== this.historyId) {
      return [down({ case: "goodbye", value: { reason: GoodbyeReason.HISTORY_CHANGED } })];
    }
    const open: Open = { shown: new Map(), deferred: new Map() };
    this.#open = open;
    const limits = { maxSendsInFlight: 3, maxSearch: MAX_SEARCH };
    const welcome = { user: this.own, historyId: this.historyId, limits };
    const frames = [down({ case: "welcome", value: welcome })];
    for (const peer of this.#conversations.keys()) {
      open.shown.set(peer, this.#start(peer, hello));
      frames.push(...this.#deliver(peer));
    }
    frames.push(...hello.cursors.map((move) => this.#advance(move)));
    const syncToken = `${this.historyId}/${this.#accepted}`;
    return [...frames, down({ case: "caughtUp", value: { syncToken } })];
  }

  #start(peer: UserId, { positions, syncToken }: Hello): number {
    const named = positions.find((it) => it.peer === peer);
    if (named !== undefined) {
      assert.ok(Number(named.seq) <= this.head(peer), "no position is ahead");
      return Number(named.seq);
    }
    if (syncToken === "") return Number(this.cursor(peer).delivered);
    const [history, accepted] = syncToken.split("/");
    assert.equal(history, this.historyId, "a token is of this history");
    const later = this.#slots(peer).findIndex((slot) => slot.accepted >= Number(accepted) - SLACK);
    return later < 0 ? this.head(peer) : later;
  }

  /** Every envelope that the session lacks. */
  #deliver(peer: UserId): ConverseResponse[] {
    if (this.#open === undefined) return [];
    const { shown } = this.#open;
    const from = shown.get(peer) ?? 0;
    const lacking = this.#slots(peer).slice(from);
    shown.set(peer, from + lacking.length);
    return lacking.map((slot, index) => {
      const envelope = this.#envelope(peer, from + index, slot);
      return down({ case: "messageDelivered", value: { envelope } });
    });
  }

  #send({ peer, messageId: id = "", afterSeq = 0n }: SendMessage, flavour: Flavour): ConverseResponse[] {
    const after = Number(afterSeq);
    assert.ok(after <= this.head(peer), "no after_seq is ahead");
    if (this.head(peer) - after > MAX_SEARCH) return this.#defer(peer, id, DeferredReason.AFTER_SEQ_TOO_OLD);
    const found = this.#slots(peer).findIndex((it, at) => at >= after && it.id === id && it.sender === this.own);
    if (found >= 0) return this.#answer(peer, id, found + 1, true, "store");
    const first = this.#open?.deferred.get(peer)?.[0];
    if (first !== undefined && first !== id) return this.#defer(peer, id, DeferredReason.BEHIND_EARLIER);
    if (flavour === "defer") return this.#defer(peer, id, DeferredReason.UNAVAILABLE);
    if (flavour === "limit") return this.#defer(peer, id, DeferredReason.RATE_LIMITED);
    this.#put(peer, id, this.own);
    if (flavour === "defer-but-land") return this.#defer(peer, id, DeferredReason.UNAVAILABLE);
    return this.#answer(peer, id, this.head(peer), false, flavour);
  }

  #answer(peer: UserId, messageId: string, place: number, duplicate: boolean, flavour: Flavour): ConverseResponse[] {
    assert.ok(this.#open);
    const { deferred, shown } = this.#open;
    remove(deferred.get(peer) ?? [], messageId);
    const stored = down({ case: "stored", value: { messageId, peer, seq: BigInt(place), duplicate } });
    if (flavour === "store" && (shown.get(peer) ?? 0) + 1 === place) shown.set(peer, place);
    const delivered = this.#deliver(peer);
    return flavour === "deliver-then-answer" ? [...delivered, stored] : [stored, ...delivered];
  }

  #defer(peer: UserId, messageId: string, reason: DeferredReason): ConverseResponse[] {
    assert.ok(this.#open);
    const list = this.#open.deferred.get(peer) ?? [];
    this.#open.deferred.set(peer, list);
    if (!list.includes(messageId)) list.push(messageId);
    const retryAfter = reason === DeferredReason.RATE_LIMITED ? { retryAfter: { seconds: 1n } } : {};
    const value = { messageId, peer, reason, head: BigInt(this.head(peer)), ...retryAfter };
    return [down({ case: "deferred", value })];
  }

  #put(peer: UserId, id: string, sender: UserId): void {
    this.#accepted += 1;
    this.#conversations.set(peer, [...this.#slots(peer), { id, sender, accepted: this.#accepted }]);
  }

  #advance({ peer, delivered = 0n, read = 0n }: AdvanceCursor): ConverseResponse {
    const asked = cursor(delivered, read);
    assert.ok(Number(asked.delivered) <= this.head(peer), "no cursor is ahead");
    const moved = furthest(this.cursor(peer), asked);
    this.#cursors.set(peer, moved);
    return down({ case: "cursorStored", value: { peer, cursor: moved } });
  }

  #envelope(peer: UserId, index: number, { id: messageId, sender }: Slot): Envelope {
    const recipient = sender === this.own ? peer : this.own;
    const body = { kind: { case: "text", value: "text" } } as const;
    return create(EnvelopeSchema, { seq: BigInt(index) + 1n, messageId, sender, recipient, body });
  }
}

function remove(list: string[], id: string): void {
  const index = list.indexOf(id);
  if (index >= 0) list.splice(index, 1);
}
