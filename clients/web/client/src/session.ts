/**
 * The client's decisions, as a pure state machine: what it is told goes in as
 * method calls with the time, what it wants is asked of it. No I/O, no clock, no
 * randomness, no timers.
 *
 * Rules that the driver keeps:
 *
 * - While `mustSave`, it saves `beginSave()` and answers with `saved`. A message is
 *   offered for sending, and a link is wanted, only after the save that holds it.
 * - Frames are read only while no event waits, so that the queue of events is
 *   bounded by what one frame can cause.
 */

import { create } from "@bufbuild/protobuf";

import type { MessageId, PendingMessage, Seq, UserId } from "./api.ts";
import { cursor } from "./cursor.ts";
import {
  type ConverseRequest,
  ConverseRequestSchema,
  type ConverseResponse,
  type ListMessagesResponse,
} from "./generated/duologue/chat/v1/chat_pb.ts";
import type { Hello } from "./generated/duologue/chat/v1/frames_pb.ts";
import { isClientId, isUserId } from "./ids.ts";
import { MAX_TEXT_BYTES, PROBE_TIMEOUT_MS, WELCOME_TIMEOUT_MS } from "./limits.ts";
import type { Scan } from "./outbox.ts";
import { toMessage } from "./session/convert.ts";
import { Core } from "./session/core.ts";
import { nextCursor, wantCursor } from "./session/cursors.ts";
import { noteSlot, onFrame } from "./session/frames.ts";
import { hello } from "./session/hello.ts";
import { handedOver, restore, snapshot } from "./session/keep.ts";
import { connect, ended } from "./session/links.ts";
import type { Saved } from "./session/records.ts";
import { type At, type LinkEnd, lost, type NotTaken, type Numbered, type SessionOptions } from "./session/types.ts";

/** A message to be kept and sent. */
export interface Letter {
  readonly id: MessageId;
  readonly peer: UserId;
  readonly text: string;
  readonly writtenAt: number;
  /** Where an earlier copy may be, if this was given to another session before. */
  readonly triedAfter?: Seq;
}

/** The state of one device of one user. */
export class Session {
  readonly #core: Core;
  /** Kept, or given up, and not yet told of, by the save that makes it so. */
  #unsaved: { readonly mark: number; readonly id: MessageId; readonly givenUpOf?: UserId }[] = [];

  /** Continues from saved state; it connects at its first tick. */
  constructor(saved: Saved, options: SessionOptions) {
    this.#core = new Core(saved.device, options);
    restore(this.#core, saved);
  }

  get state() {
    return this.#core.state;
  }

  /** Messages that are not settled, in the order they were written. */
  pending(): PendingMessage[] {
    const pending = this.#core.outbox.messages().filter(({ state }) => state !== "abandoned");
    return pending.map(toPending);
  }

  /** Takes a message into the outbox; it is safe after the save of the mark returned. */
  send({ id, peer, text, writtenAt, triedAfter }: Letter): number | NotTaken {
    const { outbox, conversations, saves } = this.#core;
    if (!isUserId(peer)) return "peer";
    if (text === "") return "empty";
    if (new TextEncoder().encode(text).length > MAX_TEXT_BYTES) return "too-long";
    if (!isClientId(id) || outbox.find(id) !== undefined) return "id-in-use";
    if (outbox.isFull) return "full";
    const mark = saves.need();
    conversations.touch(peer);
    const tried = triedAfter !== undefined;
    const afterSeq = triedAfter ?? conversations.known(peer);
    outbox.push({ id, peer, text, writtenAt, afterSeq, tried, mark });
    this.#unsaved.push({ mark, id });
    return mark;
  }

  /** What is in the outbox under this id, and where an earlier copy of it may be. */
  find(id: MessageId): (PendingMessage & { readonly afterSeq: Seq }) | undefined {
    const pending = this.#core.outbox.find(id);
    return pending && { ...toPending(pending), afterSeq: pending.afterSeq };
  }

  /** How far the application has taken each conversation. */
  positions(): Map<UserId, Seq> {
    const all = this.#core.conversations.byActivity();
    return new Map(all.flatMap(([peer, { kept }]) => (kept === undefined ? [] : [[peer, kept]])));
  }

  /** Gives a message up. Returns the mark of the save after which it is gone. */
  abandon(id: MessageId): number {
    const { outbox, saves } = this.#core;
    const peer = outbox.find(id)?.peer;
    const tell = outbox.abandon(id);
    if (tell === undefined || peer === undefined) return saves.done;
    if (tell) this.#core.abandonOnServer(id);
    const mark = saves.need();
    this.#unsaved.push({ mark, id, givenUpOf: peer });
    return mark;
  }

  /** Moves the user's read cursor; false if it does not move. */
  markRead(peer: UserId, seq: Seq, now: number): boolean {
    // A place in the history before, as long as the application cannot know better.
    if (this.#core.untakenHistories > 0) return false;
    return isUserId(peer) && seq > 0n && wantCursor(this.#core, peer, cursor(seq, seq), now);
  }

  /** Connects now instead of later, or after a stop. */
  reconnect(at: At): void {
    const { kind } = this.#core.phase;
    if (kind === "opening" || kind === "open") return;
    this.#core.backoff.reset();
    this.#core.setPhase({ kind: "waiting", until: at.now, retryAt: at.wall, cause: "" });
  }

  /** The device's network came or went, as far as it knows. */
  setOnline(isOnline: boolean): void {
    this.#core.isOnline = isOnline;
    this.#core.tellState();
  }

  /** After a sleep: an open link must show at once that it is alive. */
  probe(now: number): void {
    if (!this.#core.isWelcomed || this.#core.probeUntil !== undefined) return;
    this.#core.probeDue = true;
    this.#core.probeUntil = now + PROBE_TIMEOUT_MS;
  }

  /** State could not be saved: nothing that depends on it is done. */
  notSaved(why: "failed" | "taken-over", detail: string): void {
    const { outbox, saves } = this.#core;
    for (const { mark, id } of this.#unsaved) if (mark > saves.done) outbox.settle(id);
    this.#unsaved = [];
    if (why === "failed") return this.#core.stop("storage", detail);
    this.#core.leaveLink();
    this.#core.setPhase({ kind: "superseded" });
  }

  /** Whether nothing waits to be sent or answered. */
  get isIdle(): boolean {
    const { outbox, abandons, cursorsDue } = this.#core;
    return outbox.size === 0 && abandons.length === 0 && cursorsDue.size === 0;
  }

  /** Whether the session will do nothing more by itself. */
  get isStopped(): boolean {
    return this.#core.phase.kind === "stopped" || this.#core.phase.kind === "superseded";
  }

  /** The link that shall be there, by a number that changes with every connect. */
  get wantedLink(): number | undefined {
    const { phase, connectMark, saves, link } = this.#core;
    if (phase.kind === "open") return link;
    return phase.kind === "opening" && connectMark <= saves.done ? link : undefined;
  }

  /** Whether the next link needs another token than the last. */
  get needsFreshToken(): boolean {
    return this.#core.freshToken;
  }

  /** The first frame of the wanted link. */
  hello(): Hello {
    return hello(this.#core);
  }

  /** The wanted link is open; it carries so many sends of a conversation at a time. */
  opened(perConversation: number, at: At): void {
    this.#core.freshToken = false;
    this.#core.outbox.setPerConversation(perConversation);
    this.#core.hear(at.now);
    this.#core.setPhase({ kind: "open", welcomed: false, caughtUp: false });
  }

  /** The wanted link has ended, or could not be opened. */
  ended(end: LinkEnd, at: At): void {
    ended(this.#core, end, at);
  }

  /** A frame came on the open link. */
  frame(response: ConverseResponse, at: At): void {
    this.#core.hear(at.now);
    onFrame(this.#core, response, at);
  }

  /** An answer to a frame came beside the stream of the open link. */
  answer(response: ConverseResponse, at: At): void {
    onFrame(this.#core, response, at);
  }

  /** Whether reading is held back, so that nothing can be heard. */
  setPaused(isPaused: boolean, now: number): void {
    if (this.#core.isPaused && !isPaused) this.#core.hear(now);
    this.#core.isPaused = isPaused;
  }

  /** Time has passed. */
  tick(at: At): void {
    const { phase } = this.#core;
    if (phase.kind === "waiting" && phase.until <= at.now) connect(this.#core, at);
    const probeAt = this.#probeAt();
    if (probeAt !== undefined && probeAt <= at.now) this.probe(at.now);
    const silentAt = this.#silentAt();
    if (silentAt !== undefined && silentAt <= at.now) this.ended(lost("the server is silent"), at);
  }

  /** When `tick` has something to do, or a frame held back may go. */
  nextDeadline(now: number): number | undefined {
    const { phase, cursorsDue, cursorsAt, outbox, saves } = this.#core;
    const deadlines = [
      phase.kind === "waiting" ? phase.until : this.#silentAt(),
      this.#core.isWelcomed && cursorsDue.size > 0 && cursorsAt > now ? cursorsAt : undefined,
      this.#probeAt(),
      outbox.nextDeadline(now),
      saves.due,
    ].filter((it) => it !== undefined);
    return deadlines.length === 0 ? undefined : Math.min(...deadlines);
  }

  /** The next frame to send on the open link. */
  nextFrame(now: number): ConverseRequest | undefined {
    if (!this.#core.isWelcomed) return undefined;
    const frame = this.#nextPing() ?? this.#nextAbandon() ?? this.#nextCursor(now) ?? this.#nextMessage(now);
    return frame && create(ConverseRequestSchema, { frame });
  }

  /** A look through a conversation that is wanted; answered by `scanned`. */
  nextScan(now: number): Scan | undefined {
    return this.#core.isWelcomed ? this.#core.outbox.nextScan(now) : undefined;
  }

  /** An answer to a scan; none if it could not be had. */
  scanned(scan: Scan, page: ListMessagesResponse | undefined, at: At): void {
    const { outbox, user, saves } = this.#core;
    if (!outbox.isRunning(scan)) return;
    for (const envelope of page?.messages ?? []) {
      const message = toMessage(envelope, user);
      if (message !== undefined) noteSlot(this.#core, message);
    }
    outbox.scanned(scan, page?.head, at.now);
    saves.soon(at.now);
  }

  get hasEvent(): boolean {
    return this.#core.events.length > 0;
  }

  /** Whether events wait for a save: more of them need not be read. */
  get holdsEvents(): boolean {
    const { events, saves } = this.#core;
    return events[0] !== undefined && events[0].mark > saves.done && !this.isStopped;
  }

  nextEvent(): Numbered | undefined {
    return this.holdsEvents ? undefined : this.#core.events.shift();
  }

  /** The application has taken every event up to this number. */
  handedOver(upTo: number, now: number): void {
    handedOver(this.#core, upTo, now);
  }

  mustSave(now: number): boolean {
    return this.#core.saves.isNeeded(now);
  }

  get isUnsaved(): boolean {
    return this.#core.saves.isUnsaved;
  }

  /** The state to save now, with the mark to answer it by. */
  beginSave(): { readonly mark: number; readonly state: Saved } {
    return { mark: this.#core.saves.begin(), state: snapshot(this.#core) };
  }

  /** What `beginSave` gave is durable. */
  saved(mark: number): void {
    const { saves, outbox } = this.#core;
    saves.finish(mark);
    for (const { id, givenUpOf } of this.#unsaved.filter((it) => it.mark <= mark)) {
      if (givenUpOf !== undefined) this.#core.emit({ type: "abandoned", messageId: id, peer: givenUpOf });
      const pending = outbox.find(id);
      if (pending !== undefined) this.#core.emit({ type: "pending", message: toPending(pending) });
    }
    this.#unsaved = this.#unsaved.filter((it) => it.mark > mark);
  }

  /** When the silence of the server becomes too long; none while reading is held back. */
  #silentAt(): number | undefined {
    const { phase, heardAt, probeUntil, silenceMs, isPaused } = this.#core;
    if (phase.kind !== "open" || isPaused || this.hasEvent) return undefined;
    if (!phase.welcomed) return heardAt + WELCOME_TIMEOUT_MS;
    return Math.min(heardAt + silenceMs, probeUntil ?? Infinity);
  }

  /** An open link of a device without a network must show again and again that it is
   * alive: the first answer may have been under way when the network went. */
  #probeAt(): number | undefined {
    const { isOnline, isWelcomed, isPaused, heardAt, pongAt, probeUntil } = this.#core;
    if (isOnline || !isWelcomed || isPaused || probeUntil !== undefined) return undefined;
    return Math.max(heardAt, pongAt) + PROBE_TIMEOUT_MS;
  }

  #nextPing(): ConverseRequest["frame"] | undefined {
    if (!this.#core.probeDue) return undefined;
    this.#core.probeDue = false;
    return { case: "ping", value: { $typeName: "duologue.chat.v1.Ping" } };
  }

  #nextAbandon(): ConverseRequest["frame"] | undefined {
    const messageId = this.#core.abandons.shift();
    if (messageId === undefined) return undefined;
    return { case: "abandon", value: { $typeName: "duologue.chat.v1.Abandon", messageId } };
  }

  #nextCursor(now: number): ConverseRequest["frame"] | undefined {
    const value = nextCursor(this.#core, now);
    return value && { case: "advanceCursor", value };
  }

  #nextMessage(now: number): ConverseRequest["frame"] | undefined {
    const { outbox, saves, conversations } = this.#core;
    const pending = outbox.next(now, saves.done, (peer) => conversations.known(peer));
    if (pending === undefined) return undefined;
    const { peer, id: messageId, afterSeq, text } = pending;
    const body = { $typeName: "duologue.chat.v1.Body", kind: { case: "text", value: text } } as const;
    return { case: "sendMessage", value: { $typeName: "duologue.chat.v1.SendMessage", peer, messageId, afterSeq, body } };
  }
}

function toPending(it: { id: MessageId; peer: UserId; text: string; writtenAt: number }): PendingMessage {
  return { messageId: it.id, peer: it.peer, text: it.text, writtenAt: new Date(it.writtenAt) };
}
