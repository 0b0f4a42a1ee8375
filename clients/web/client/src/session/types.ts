/** What goes into the session, and what it is made of. */

import type { Cursor, Event, Seq, StopReason, UserId } from "../api.ts";
import type { SavedMessage } from "./records.ts";

/** The time of an input, and a random number for what it decides. */
export interface At {
  /** Milliseconds since the client started; never goes back. */
  readonly now: number;
  /** Milliseconds since 1970, by the wall clock. */
  readonly wall: number;
  /** A fresh random number of [0, 1). */
  readonly dice: number;
}

/** What the application decides. */
export interface SessionOptions {
  readonly user: UserId;
  readonly clientName: string;
  readonly clientVersion: string;
}

/** What follows from the end of a link. */
export type EndKind =
  /** Connect again. */
  | "lost"
  /** Do not connect again by oneself. */
  | "superseded"
  /** Connect again with a new token. */
  | "unauthenticated"
  /** The source has no other token than the refused one. */
  | "no-other-token"
  /** Forget the history, then connect again. */
  | "history-changed"
  /** The server does not take what `Hello` says. */
  | "refused";

/** How a link ended. */
export interface LinkEnd {
  readonly kind: EndKind;
  /** For a person. */
  readonly cause: string;
  readonly retryAfterMs?: number | undefined;
}

export function lost(cause: string, retryAfterMs?: number): LinkEnd {
  return { kind: "lost", cause, retryAfterMs };
}

export type Phase =
  | { readonly kind: "waiting"; readonly until: number; readonly retryAt: number; readonly cause: string }
  | { readonly kind: "opening" }
  | { readonly kind: "open"; readonly welcomed: boolean; readonly caughtUp: boolean }
  | { readonly kind: "superseded" }
  | { readonly kind: "stopped"; readonly reason: StopReason; readonly detail: string };

/** What follows when the application has taken an event. */
export type Handover =
  | { readonly kind: "position"; readonly peer: UserId; readonly seq: Seq; readonly deliver: boolean }
  | { readonly kind: "token"; readonly token: string }
  | { readonly kind: "own-cursor"; readonly peer: UserId; readonly cursor: Cursor }
  | { readonly kind: "peer-cursor"; readonly peer: UserId; readonly cursor: Cursor }
  | { readonly kind: "settled"; readonly message: SavedMessage }
  | { readonly kind: "history" };

/** An event, with its number. */
export interface Numbered {
  readonly number: number;
  readonly event: Event;
  /** The save after which it may be told. */
  readonly mark: number;
}

/** Why a message is not taken. */
export type NotTaken = "peer" | "empty" | "too-long" | "full" | "id-in-use";
