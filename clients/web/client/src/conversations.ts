/**
 * What the device knows of each conversation: how far it has shown it, and both
 * users' cursors.
 *
 * A position moves by one message at a time, or is set by the first message of a
 * conversation of which the device holds nothing: the server started where
 * catch-up starts.
 */

import type { Cursor, Seq, UserId } from "./api.ts";
import { covers, larger, NO_CURSOR } from "./cursor.ts";
import { MAX_CONVERSATIONS } from "./limits.ts";

/** What a delivered sequence is to the device. */
export type Arrival =
  /** The next one; the position has moved to it. */
  | "next"
  /** It was shown before. */
  | "seen"
  /** Something before it is missing. */
  | "gap";

/** One conversation. */
export class ConversationState {
  /** The last sequence put into an event. */
  position: Seq | undefined;
  /** The last sequence that the application has taken. */
  kept: Seq | undefined;
  /** The highest sequence known to exist. */
  known: Seq = 0n;
  /** Where the user's cursor shall be. */
  wanted: Cursor = NO_CURSOR;
  /** Where the server has said that it is. */
  confirmed: Cursor = NO_CURSOR;
  /** What the open session was asked for. */
  asked: Cursor = NO_CURSOR;
  /** What the application knows of `wanted`: it has asked for it, or has taken the
   * event that tells it. */
  knownOwn: Cursor = NO_CURSOR;
  /** What was put into events of the peer's cursor; never lowered. */
  peerCursor: Cursor = NO_CURSOR;
  /** What the application has taken of it. */
  knownPeer: Cursor = NO_CURSOR;
  /** Rises with activity. */
  active = 0;

  get isUnconfirmed(): boolean {
    return !covers(this.confirmed, this.wanted);
  }

  /** Whether the open session is to be asked for a cursor move. */
  get isToBeAsked(): boolean {
    return this.isUnconfirmed && !covers(this.asked, this.wanted);
  }

  arrive(seq: Seq): Arrival {
    if (this.position !== undefined) {
      if (seq <= this.position) return "seen";
      if (seq > this.position + 1n) return "gap";
    }
    this.position = seq;
    return "next";
  }
}

/** All conversations, at most `MAX_CONVERSATIONS`. */
export class Conversations {
  readonly #map = new Map<UserId, ConversationState>();
  #activity = 0;

  get(peer: UserId): ConversationState | undefined {
    return this.#map.get(peer);
  }

  /** The conversation, marked as the most recently active. */
  touch(peer: UserId): ConversationState {
    let conversation = this.#map.get(peer);
    if (conversation === undefined) {
      if (this.#map.size >= MAX_CONVERSATIONS) this.#forgetLeastActive();
      conversation = new ConversationState();
      this.#map.set(peer, conversation);
    }
    this.#activity += 1;
    conversation.active = this.#activity;
    return conversation;
  }

  /** The highest sequence known to exist. */
  known(peer: UserId): Seq {
    return this.#map.get(peer)?.known ?? 0n;
  }

  /** A sequence is known to exist. */
  exists(peer: UserId, seq: Seq): ConversationState {
    const conversation = this.touch(peer);
    conversation.known = larger(conversation.known, seq);
    return conversation;
  }

  /** A message was delivered. */
  arrive(peer: UserId, seq: Seq): Arrival {
    return this.exists(peer, seq).arrive(seq);
  }

  /**
   * An own message was stored. Returns whether this moved the position: only over
   * no gap, and never from nothing, unless it is the very first.
   */
  stored(peer: UserId, seq: Seq): boolean {
    const conversation = this.exists(peer, seq);
    const next = (conversation.position ?? 0n) + 1n === seq;
    if (next) conversation.position = seq;
    return next;
  }

  /** All conversations, the most recently active first. */
  byActivity(): [UserId, ConversationState][] {
    return [...this.#map].sort(([, one], [, other]) => other.active - one.active);
  }

  values(): Iterable<ConversationState> {
    return this.#map.values();
  }

  clear(): void {
    this.#map.clear();
  }

  /** One with an unconfirmed cursor only if there is no other. */
  #forgetLeastActive(): void {
    let least: [UserId, ConversationState] | undefined;
    for (const entry of this.#map) {
      if (least === undefined || isBefore(entry[1], least[1])) least = entry;
    }
    if (least !== undefined) this.#map.delete(least[0]);
  }
}

function isBefore(one: ConversationState, other: ConversationState): boolean {
  if (one.isUnconfirmed !== other.isUnconfirmed) return !one.isUnconfirmed;
  return one.active < other.active;
}
