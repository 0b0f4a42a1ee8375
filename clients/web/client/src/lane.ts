/** What is not settled in one conversation, in the order it was written. */

import type { MessageId, Seq, UserId } from "./api.ts";
import { MAX_SENDS_IN_FLIGHT } from "./limits.ts";

/** Where a message is. */
export type SendState =
  /** It waits for its turn. */
  | "waiting"
  /** It waits, and is on the list of deferred messages of the open session. */
  | "deferred"
  /** It was sent on the open session, and is not answered. */
  | "in-flight"
  /** The same, and the application gave it up meanwhile. */
  | "abandoned";

/** A message that is not settled. */
export interface Pending {
  readonly id: MessageId;
  readonly peer: UserId;
  readonly text: string;
  readonly writtenAt: number;
  /** Rises from message to message of this device. */
  readonly order: number;
  /** The save after which it is kept, and may be sent. */
  readonly mark: number;
  /** A sequence that existed before the first try, or up to which every slot was seen. */
  afterSeq: Seq;
  /** How often it may have reached a server. */
  tries: number;
  state: SendState;
}

/** A look through the conversation: none, one that is wanted, or the ticket of one. */
export type ScanState = "none" | "wanted" | number;

export function isInFlight(pending: Pending): boolean {
  return pending.state === "in-flight" || pending.state === "abandoned";
}

/** Whether a try may have stored it before the one that is in flight. */
export function wasTriedBefore(pending: Pending): boolean {
  return !isInFlight(pending) || pending.tries > 1;
}

/** What holds for all lanes at the moment. */
export interface Gate {
  readonly now: number;
  /** How many messages of one conversation may be in flight. */
  readonly limit: number;
  /** The last save that is done. */
  readonly saved: number;
}

/** Never empty, but while it is being changed. */
export class Lane {
  messages: Pending[] = [];
  inFlight = 0;
  window = MAX_SENDS_IN_FLIGHT;
  holdUntil: number | undefined;
  scan: ScanState = "none";

  isHeld(now: number): boolean {
    return this.holdUntil !== undefined && this.holdUntil > now;
  }

  /** At the longest of what is asked for. */
  hold(until: number): void {
    this.holdUntil = Math.max(this.holdUntil ?? 0, until);
  }

  /**
   * Whether the message behind those in flight may go. If one in flight stands
   * behind one that is not, its answer comes first.
   */
  isReady({ now, limit, saved }: Gate): boolean {
    const next = this.messages[this.inFlight];
    return (
      next !== undefined &&
      next.mark <= saved &&
      this.inFlight < Math.min(this.window, limit) &&
      this.scan === "none" &&
      !this.isHeld(now) &&
      this.messages.slice(0, this.inFlight).every(isInFlight)
    );
  }
}
