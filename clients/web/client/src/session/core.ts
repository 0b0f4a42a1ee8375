/**
 * The session's state, and what the parts beside this file share: phases, events,
 * and what is forgotten when.
 */

import type { ConnectionState, Event, MessageId, StopReason, UserId } from "../api.ts";
import { Backoff } from "../backoff.ts";
import { Conversations } from "../conversations.ts";
import { HEARTBEAT_INTERVAL_MS, HEARTBEAT_SLACK_MS, MAX_OUTBOX, PROBE_TIMEOUT_MS } from "../limits.ts";
import { Outbox } from "../outbox.ts";
import type { SavedDevice } from "./records.ts";
import { Saves } from "./saves.ts";
import type { At, Handover, LinkEnd, Numbered, Phase, SessionOptions } from "./types.ts";

/** Decides nothing by itself; see `Session`. */
export class Core {
  readonly options: SessionOptions;
  readonly deviceId: string;
  connectNumber: number;
  /** The last connect number that a server is known to have taken. */
  sureNumber: number;
  /** The save after which the connect number may be used. */
  connectMark = 0;
  /** False once the server has found the wall clock to be too far ahead. */
  trustsClock = true;
  historyId: string;
  /** The newest token whose predecessors are in events, and the newest whose
   * predecessors the application has taken. */
  token: string;
  keptToken: string;
  readonly conversations = new Conversations();
  readonly outbox = new Outbox();
  readonly saves = new Saves();
  readonly backoff = new Backoff();

  phase: Phase = { kind: "waiting", until: 0, retryAt: 0, cause: "" };
  /** Names the link that is wanted, so that an old one is not taken for it. */
  link = 0;
  /** When something came from the server last. */
  heardAt = 0;
  /** Until when the server must answer a `Ping`. */
  probeUntil: number | undefined;
  probeDue = false;
  /** When a `Ping` was answered last. */
  pongAt = 0;
  /** Reading is held back, which is no silence of the server. */
  isPaused = false;
  silenceMs = HEARTBEAT_INTERVAL_MS + HEARTBEAT_SLACK_MS;
  freshToken = false;
  /** What the server said of the last token that it refused. */
  refusal = "";
  /** Whether the device's network is known to be off. */
  isOnline = true;
  /** Given up while on the server's list of deferred messages. */
  readonly abandons: MessageId[] = [];
  readonly cursorsDue = new Set<UserId>();
  cursorsAt = 0;

  readonly events: Numbered[] = [];
  /** Changes of the history that the application does not know of yet. */
  untakenHistories = 0;
  handovers: { readonly number: number; readonly handover: Handover }[] = [];
  #lastEvent = 0;
  #toldState = "";

  constructor(saved: SavedDevice, options: SessionOptions) {
    this.options = options;
    this.deviceId = saved.deviceId;
    this.connectNumber = saved.connectNumber;
    this.sureNumber = saved.sureNumber;
    this.historyId = saved.historyId;
    this.token = saved.syncToken;
    this.keptToken = saved.syncToken;
  }

  get user(): UserId {
    return this.options.user;
  }

  get isWelcomed(): boolean {
    return this.phase.kind === "open" && this.phase.welcomed;
  }

  /** What the connection is doing, as the application sees it. */
  get state(): ConnectionState {
    const phase = this.phase;
    const attempt = this.backoff.failures + 1;
    switch (phase.kind) {
      case "superseded":
        return { kind: "superseded" };
      case "stopped":
        return { kind: "stopped", reason: phase.reason, detail: phase.detail };
      case "open":
        if (phase.caughtUp) return { kind: "connected" };
        if (phase.welcomed) return { kind: "catching-up" };
        break;
      case "waiting":
        if (this.isOnline && phase.cause !== "") {
          return { kind: "waiting", retryAt: phase.retryAt, cause: phase.cause };
        }
        break;
      case "opening":
        break;
    }
    return this.isOnline ? { kind: "connecting", attempt } : { kind: "offline" };
  }

  setPhase(phase: Phase): void {
    this.phase = phase;
    this.tellState();
  }

  /** Emits the state if it is another than was told last. */
  tellState(): void {
    const state = this.state;
    const told = JSON.stringify(state);
    if (told === this.#toldState) return;
    this.#toldState = told;
    this.emit({ type: "state", state });
  }

  /** Tells the application, once the save of this mark is done. */
  emit(event: Event, handover?: Handover, mark = 0): void {
    this.#lastEvent += 1;
    this.events.push({ number: this.#lastEvent, event, mark });
    if (handover !== undefined) this.handovers.push({ number: this.#lastEvent, handover });
  }

  /** What was under way when a `Ping` was sent is no answer to it, but takes its time. */
  hear(now: number): void {
    this.heardAt = now;
    if (this.probeUntil !== undefined) this.probeUntil = now + PROBE_TIMEOUT_MS;
  }

  wait(end: LinkEnd, at: At): void {
    const delay = this.backoff.next(end.retryAfterMs, at.dice);
    const { cause } = end;
    this.setPhase({ kind: "waiting", until: at.now + delay, retryAt: at.wall + delay, cause });
  }

  stop(reason: StopReason, detail: string): void {
    this.leaveLink();
    // Whoever connects again may know that the server takes the refused token by now.
    if (reason === "unauthenticated" || reason === "other-user") this.freshToken = reason === "other-user";
    this.setPhase({ kind: "stopped", reason, detail });
  }

  /** Whatever the open link had under way is unknown, or void. */
  leaveLink(): void {
    this.outbox.disconnected();
    this.abandons.length = 0;
    this.probeDue = false;
    this.probeUntil = undefined;
    this.cursorsDue.clear();
    this.cursorsAt = 0;
    for (const conversation of this.conversations.values()) conversation.asked = conversation.confirmed;
  }

  /** Bounded, since a server may defer what was never sent. */
  abandonOnServer(id: MessageId): void {
    if (this.abandons.length < MAX_OUTBOX) this.abandons.push(id);
  }

  forgetToken(): void {
    this.token = "";
    this.keptToken = "";
    this.handovers = this.handovers.filter(({ handover }) => handover.kind !== "token");
    this.saves.need();
  }

  /**
   * Drops everything that only has meaning in the history known so far; keeps what
   * is not settled.
   */
  forgetHistory(): void {
    this.historyId = "";
    this.forgetToken();
    this.conversations.clear();
    this.cursorsDue.clear();
    this.outbox.forgetHistory();
    this.handovers = this.handovers.flatMap(({ number, handover }): Core["handovers"] => {
      if (handover.kind === "history") return [{ number, handover }];
      // Kept until the application knows it, and then sent to the other history.
      if (handover.kind !== "settled") return [];
      return [{ number, handover: { ...handover, message: { ...handover.message, afterSeq: 0n } } }];
    });
    this.tellHistory();
  }

  tellHistory(): void {
    this.untakenHistories += 1;
    this.emit({ type: "history-changed" }, { kind: "history" });
  }
}
