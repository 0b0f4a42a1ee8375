/**
 * Messages that are not settled, and when each may be sent.
 *
 * Order rules, per conversation:
 *
 * - Messages go out oldest first. What was refused for now goes out again before
 *   anything behind it, and only when nothing of the conversation is in flight:
 *   the server would defer it anyway.
 * - After a deferral one message is in flight at a time, then one more for every
 *   answer. So a server that defers is not flooded with what it would defer too.
 * - `afterSeq` of a message that was tried is raised only slot by slot, over slots
 *   that were seen and hold another message.
 */

import type { MessageId, Seq, UserId } from "./api.ts";
import { larger } from "./cursor.ts";
import { type Gate, isInFlight, Lane, type Pending, type SendState } from "./lane.ts";
import { MAX_OUTBOX, MAX_SEARCH, MAX_SENDS_IN_FLIGHT, RETRY_DELAY_MS } from "./limits.ts";

/** A look through a conversation for earlier copies. */
export interface Scan {
  /** Names this look; an answer to another one is ignored. */
  readonly ticket: number;
  readonly peer: UserId;
  /** Ask for messages after this one. */
  readonly afterSeq: Seq;
}

/** What is put into the outbox. */
export interface Draft {
  readonly id: MessageId;
  readonly peer: UserId;
  readonly text: string;
  readonly writtenAt: number;
  readonly afterSeq: Seq;
  /** Whether it may have reached a server. */
  readonly tried: boolean;
  /** The save after which it may be sent. */
  readonly mark: number;
}

/** All messages that are not settled. Bounded by `MAX_OUTBOX`. */
export class Outbox {
  readonly #lanes = new Map<UserId, Lane>();
  readonly #peers = new Map<MessageId, UserId>();
  #inFlight = 0;
  #maxInFlight = MAX_SENDS_IN_FLIGHT;
  #perConversation = MAX_SENDS_IN_FLIGHT;
  #maxSearch = MAX_SEARCH;
  /** Conversations take turns. */
  #lastServed: UserId | undefined;
  #scans = 0;
  #order = 0;

  get size(): number {
    return this.#peers.size;
  }

  get isFull(): boolean {
    return this.size >= MAX_OUTBOX;
  }

  find(id: MessageId): Pending | undefined {
    const peer = this.#peers.get(id);
    return peer === undefined ? undefined : this.#lanes.get(peer)?.messages.find((it) => it.id === id);
  }

  /** Adds a message behind the others of its conversation. */
  push({ tried, ...draft }: Draft): Pending {
    this.#order += 1;
    const pending: Pending = { ...draft, order: this.#order, tries: tried ? 1 : 0, state: "waiting" };
    this.#peers.set(draft.id, draft.peer);
    let lane = this.#lanes.get(draft.peer);
    if (lane === undefined) this.#lanes.set(draft.peer, (lane = new Lane()));
    lane.messages.push(pending);
    return pending;
  }

  /** The limits of the open session. */
  setLimits(maxInFlight: number, maxSearch: bigint): void {
    this.#maxInFlight = Math.min(Math.max(maxInFlight, 1), MAX_SENDS_IN_FLIGHT);
    const atMost = maxSearch < MAX_SEARCH ? maxSearch : MAX_SEARCH;
    this.#maxSearch = atMost < 1n ? 1n : atMost;
  }

  /** How many messages of one conversation the open link carries at a time. */
  setPerConversation(limit: number): void {
    this.#perConversation = Math.max(limit, 1);
  }

  /** Whether `next` has something. */
  isReady(now: number, saved: number): boolean {
    return this.#inFlight < this.#maxInFlight && this.#nextLane(now, saved) !== undefined;
  }

  /**
   * The message to send now. `known` is the highest sequence known of a
   * conversation: a message that was never tried starts there.
   */
  next(now: number, saved: number, known: (peer: UserId) => Seq): Pending | undefined {
    if (this.#inFlight >= this.#maxInFlight) return undefined;
    const peer = this.#nextLane(now, saved);
    const lane = peer === undefined ? undefined : this.#lanes.get(peer);
    const pending = lane?.messages[lane.inFlight];
    if (peer === undefined || lane === undefined || pending === undefined) return undefined;
    if (pending.tries === 0) pending.afterSeq = larger(pending.afterSeq, known(peer));
    pending.tries += 1;
    pending.state = "in-flight";
    lane.inFlight += 1;
    this.#inFlight += 1;
    this.#lastServed = peer;
    return pending;
  }

  /** When the next message that is held may go, if any. */
  nextDeadline(now: number): number | undefined {
    let first: number | undefined;
    for (const { holdUntil } of this.#lanes.values()) {
      if (holdUntil !== undefined && holdUntil > now) first = Math.min(first ?? holdUntil, holdUntil);
    }
    return first;
  }

  /** Removes a message that is settled. */
  settle(id: MessageId): Pending | undefined {
    const peer = this.#peers.get(id);
    const lane = peer === undefined ? undefined : this.#lanes.get(peer);
    if (peer === undefined || lane === undefined) return undefined;
    this.#peers.delete(id);
    const index = lane.messages.findIndex((it) => it.id === id);
    const [pending] = lane.messages.splice(index, 1);
    if (pending !== undefined && isInFlight(pending)) {
      this.#landed(lane);
      lane.window = Math.min(lane.window + 1, MAX_SENDS_IN_FLIGHT);
    }
    if (lane.messages.length === 0) this.#lanes.delete(peer);
    return pending;
  }

  /**
   * Takes a message back that the server did not settle. Returns the state it was
   * in; none if it is unknown.
   */
  defer(id: MessageId, until: number): SendState | undefined {
    const pending = this.find(id);
    const lane = pending && this.#lanes.get(pending.peer);
    if (pending === undefined || lane === undefined) return undefined;
    if (isInFlight(pending)) this.#landed(lane);
    const { state } = pending;
    pending.state = "deferred";
    lane.window = 1;
    lane.hold(until);
    return state;
  }

  /**
   * Gives a message up. It stays while it is in flight, since its answer may yet be
   * that it is stored. Returns whether the server must be told; none: it is unknown.
   */
  abandon(id: MessageId): boolean | undefined {
    const pending = this.find(id);
    if (pending === undefined) return undefined;
    if (isInFlight(pending)) {
      pending.state = "abandoned";
      return false;
    }
    this.settle(id);
    return pending.state === "deferred";
  }

  /**
   * Notes what slot `seq` holds: `own` is the id there, if this user sent it
   * (another user may use the same id). Returns the own message found there, which
   * is no longer here then.
   */
  saw(peer: UserId, seq: Seq, own: MessageId | undefined): Pending | undefined {
    let found: MessageId | undefined;
    for (const pending of this.#lanes.get(peer)?.messages ?? []) {
      if (own === pending.id) found = own;
      else if (pending.afterSeq + 1n === seq) pending.afterSeq = seq;
    }
    return found === undefined ? undefined : this.settle(found);
  }

  /** The session has ended: everything in flight is unknown. */
  disconnected(): void {
    for (const pending of this.messages()) {
      if (pending.state === "abandoned") this.settle(pending.id);
    }
    for (const lane of this.#lanes.values()) {
      for (const pending of lane.messages) pending.state = "waiting";
      lane.inFlight = 0;
      lane.window = MAX_SENDS_IN_FLIGHT;
    }
    this.#inFlight = 0;
    this.#maxInFlight = MAX_SENDS_IN_FLIGHT;
  }

  /** Sequences of another history mean nothing. */
  forgetHistory(): void {
    for (const lane of this.#lanes.values()) {
      lane.scan = "none";
      lane.holdUntil = undefined;
      for (const pending of lane.messages) pending.afterSeq = 0n;
    }
  }

  /** Asks for a look through a conversation before its messages go again. */
  wantScan(peer: UserId): void {
    const lane = this.#lanes.get(peer);
    if (lane?.scan === "none") lane.scan = "wanted";
  }

  nextScan(now: number): Scan | undefined {
    for (const [peer, lane] of this.#lanes) {
      const first = lane.messages[0];
      if (lane.scan !== "wanted" || lane.isHeld(now) || first === undefined) continue;
      this.#scans += 1;
      lane.scan = this.#scans;
      return { ticket: this.#scans, peer, afterSeq: first.afterSeq };
    }
    return undefined;
  }

  /** Whether `scan` is still of use. */
  isRunning(scan: Scan): boolean {
    return this.#lanes.get(scan.peer)?.scan === scan.ticket;
  }

  /** A page of a look was noted with `saw`, or could not be had (`head` is none). */
  scanned(scan: Scan, head: Seq | undefined, now: number): void {
    const lane = this.#lanes.get(scan.peer);
    if (lane === undefined) return;
    const reached = lane.messages[0]?.afterSeq ?? 0n;
    const done = head !== undefined && reached + this.#maxSearch >= head;
    lane.scan = done ? "none" : "wanted";
    // A page that shows nothing new must not be asked for again at once.
    if (!done && reached <= scan.afterSeq) lane.hold(now + RETRY_DELAY_MS);
  }

  /** All messages, in the order they were written. */
  messages(): Pending[] {
    const all = [...this.#lanes.values()].flatMap((lane) => lane.messages);
    return all.sort((one, other) => one.order - other.order);
  }

  #landed(lane: Lane): void {
    lane.inFlight -= 1;
    this.#inFlight -= 1;
  }

  /** The first that is ready behind the one served last, in turn. */
  #nextLane(now: number, saved: number): UserId | undefined {
    const gate: Gate = { now, saved, limit: this.#perConversation };
    const peers = [...this.#lanes.keys()];
    const last = this.#lastServed === undefined ? -1 : peers.indexOf(this.#lastServed);
    const turn = [...peers.slice(last + 1), ...peers.slice(0, last + 1)];
    return turn.find((peer) => this.#lanes.get(peer)?.isReady(gate));
  }
}
