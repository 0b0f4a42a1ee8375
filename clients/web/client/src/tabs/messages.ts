/** What the tabs of one user say to each other over a BroadcastChannel. */

import type { Client, ConnectionState, Event, MessageId, PendingMessage, Presence, Seq, UserId } from "../api.ts";
import type { Letter } from "../session.ts";

/** What a tab asks of whichever tab is the owner. */
export type Ask =
  /** Tell me what there is. Answered by `snapshot`. */
  | { readonly kind: "join" }
  /** Are you there? Answered by `alive`. */
  | { readonly kind: "probe" }
  /** Keep this and send it. Answered by `kept` or `failed`. */
  | { readonly kind: "send"; readonly request: number; readonly letter: Letter }
  /** Answered by `done` or `failed`. */
  | { readonly kind: "abandon"; readonly request: number; readonly id: MessageId }
  | { readonly kind: "read"; readonly peer: UserId; readonly seq: Seq }
  | { readonly kind: "reconnect" };

/** What the owner tells: all tabs, or the one named by `to`. */
export type Told =
  /** Somebody else became the owner: whatever is not answered is to be asked again. */
  | { readonly kind: "owner" }
  | { readonly kind: "alive" }
  | { readonly kind: "event"; readonly event: Event }
  | { readonly kind: "snapshot"; readonly to: string; readonly snapshot: Snapshot }
  | { readonly kind: "kept"; readonly to: string; readonly request: number; readonly afterSeq: Seq }
  | { readonly kind: "done"; readonly to: string; readonly request: number }
  | { readonly kind: "failed"; readonly to: string; readonly request: number; readonly failure: Failure };

/** What a tab that joins must know. */
export interface Snapshot {
  readonly state: ConnectionState;
  readonly durability: Client["durability"];
  readonly pending: readonly PendingMessage[];
  /** Of the open session, if there is one. */
  readonly connected: Event | undefined;
  /** How far the owner's events went, by conversation. */
  readonly positions: ReadonlyMap<UserId, Seq>;
  /** Those who are online, as far as events told. */
  readonly online: readonly Presence[];
}

export interface Failure {
  readonly code: string;
  readonly message: string;
  readonly reason: string | undefined;
  readonly field: string | undefined;
  readonly retryAfterMs: number | undefined;
}

export type Spoken =
  | { readonly from: string; readonly ask: Ask; readonly told?: never }
  /** `term` rises from owner to owner: one that was replaced and does not know it yet
   * is not believed. */
  | { readonly from: string; readonly told: Told; readonly term: number; readonly ask?: never };

/** What is used of a BroadcastChannel. */
export interface Channel {
  onmessage: ((event: MessageEvent) => void) | null;
  postMessage(message: Spoken): void;
  close(): void;
}
