/**
 * The I/O around the session: it performs what the session wants, and tells it what
 * happens. Everything that happens ends in one `pump`.
 */

import type { Seq, UserId } from "./api.ts";
import type { Environment } from "./environment.ts";
import { closedError, DuologueError } from "./errors.ts";
import { EventHub } from "./events.ts";
import type { ListMessagesRequest, ListMessagesResponse } from "./generated/duologue/chat/v1/chat_pb.ts";
import { Direction } from "./generated/duologue/chat/v1/model_pb.ts";
import { Linker } from "./linker.ts";
import { CLOSE_TIMEOUT_MS, SCAN_PAGE } from "./limits.ts";
import type { Scan } from "./outbox.ts";
import type { Saver } from "./saver.ts";
import type { Letter, Session } from "./session.ts";
import type { At, NotTaken } from "./session/types.ts";
import { TAKEN_OVER } from "./store/indexedDb.ts";
import type { Tokens } from "./tokens.ts";
import type { Transport } from "./transport/transport.ts";

/** The part of `ListMessages` that a look through a conversation needs. */
export type ListMessages = (
  request: Pick<ListMessagesRequest, "peer" | "pageSize" | "direction" | "afterSeq">,
) => Promise<ListMessagesResponse>;

export interface DriverParts {
  readonly session: Session;
  readonly saver: Saver;
  readonly transport: Transport;
  readonly tokens: Tokens;
  readonly listMessages: ListMessages;
  readonly environment: Environment;
}

interface Waiter {
  readonly mark: number;
  resolve(): void;
  reject(error: Error): void;
}

export class Driver {
  readonly events: EventHub;
  /** Somebody else has opened the store since. */
  isTakenOver = false;
  readonly #parts: DriverParts;
  readonly #linker: Linker;
  #waiters: Waiter[] = [];
  #isScheduled = false;
  #isScanning = false;
  #isStoreBroken = false;
  #stopTimer: () => void = () => undefined;
  readonly #stopWatching: () => void;
  #closing: { readonly until: number; done: () => void } | undefined;
  #isClosed = false;

  constructor(parts: DriverParts) {
    const { session, environment } = parts;
    this.#parts = parts;
    this.events = new EventHub((upTo) => {
      session.handedOver(upTo, environment.now());
      this.#schedule();
    });
    this.#linker = new Linker(parts, () => this.#at(), () => this.#schedule());
    session.setOnline(environment.isOnline);
    this.#stopWatching = environment.watch({
      online: () => this.#network(true),
      offline: () => this.#network(false),
      awake: () => this.#awake(),
    });
    this.#schedule();
  }

  get isClosed(): boolean {
    return this.#isClosed || this.#closing !== undefined;
  }

  /** Resolves once the message is kept. */
  async send(letter: Letter): Promise<void> {
    this.#mustBeOpen();
    const taken = this.#parts.session.send(letter);
    if (typeof taken === "string") throw notTaken(taken);
    await this.#savedUpTo(taken);
  }

  async abandon(id: string): Promise<void> {
    this.#mustBeOpen();
    await this.#savedUpTo(this.#parts.session.abandon(id));
  }

  markRead(peer: UserId, seq: Seq): boolean {
    if (this.isClosed || !this.#parts.session.markRead(peer, seq, this.#parts.environment.now())) return false;
    this.#schedule();
    return true;
  }

  reconnect(): void {
    if (this.isClosed) return;
    this.#isStoreBroken = false;
    this.#parts.session.reconnect(this.#at());
    this.#schedule();
  }

  /**
   * Ends everything. What is under way may be answered first, for a moment, if there
   * is a connection.
   */
  close(): Promise<void> {
    if (this.#isClosed) return Promise.resolve();
    return new Promise((resolve) => {
      const before = this.#closing?.done;
      const until = this.#closing?.until ?? this.#parts.environment.now() + CLOSE_TIMEOUT_MS;
      const done = () => {
        before?.();
        resolve();
      };
      this.#closing = { until, done };
      this.#schedule();
    });
  }

  /** Ends everything now, without another write: somebody else owns the state. */
  drop(): void {
    this.#end(closedError());
  }

  /** Never within the caller's own call. */
  #schedule(): void {
    if (this.#isScheduled || this.#isClosed) return;
    this.#isScheduled = true;
    queueMicrotask(() => {
      this.#isScheduled = false;
      if (!this.#isClosed) this.#pump();
    });
  }

  #pump(): void {
    const { session, environment } = this.#parts;
    this.#tellEvents();
    while (this.events.hasRoom && !session.holdsEvents && this.#linker.readOne(this.#at())) this.#tellEvents();
    // What is there has been heard before silence is judged.
    session.tick(this.#at());
    this.#tellEvents();
    session.setPaused(this.#linker.holdsFrames, environment.now());
    this.#save();
    // While nobody takes events, and at the end, there is no use in a new link.
    this.#linker.follow(this.events.hasRoom && this.#closing === undefined);
    this.#linker.sendFrames(this.#at());
    this.#tellEvents();
    this.#scan();
    this.#finishClosing();
    this.#setTimer();
  }

  #tellEvents(): void {
    for (;;) {
      const item = this.#parts.session.nextEvent();
      if (item === undefined) return;
      this.events.push(item);
    }
  }

  #save(): void {
    const { session, saver, environment } = this.#parts;
    const isWanted = session.mustSave(environment.now()) || (this.#closing !== undefined && session.isUnsaved);
    // A store that has failed is tried again when somebody asks for something.
    const isHopeless = this.#isStoreBroken && this.#waiters.length === 0 && this.#closing === undefined;
    if (saver.isBusy || !isWanted || isHopeless) return;
    const { mark, state } = session.beginSave();
    saver.save(state).then(
      () => this.#saved(mark),
      (error: unknown) => this.#notSaved(error),
    );
  }

  #saved(mark: number): void {
    this.#isStoreBroken = false;
    this.#parts.session.saved(mark);
    this.#tellEvents();
    for (const waiter of this.#waiters.filter((it) => it.mark <= mark)) waiter.resolve();
    this.#waiters = this.#waiters.filter((it) => it.mark > mark);
    this.#schedule();
  }

  #notSaved(error: unknown): void {
    const isTakenOver = error instanceof DuologueError && error.reason === TAKEN_OVER;
    // Only the kind: what a store says may quote what it was given.
    const detail = isTakenOver ? error.message : `state cannot be saved (${error instanceof Error ? error.name : "error"})`;
    this.#isStoreBroken = true;
    this.isTakenOver = isTakenOver;
    this.#parts.session.notSaved(isTakenOver ? "taken-over" : "failed", detail);
    const failure = isTakenOver ? error : new DuologueError("resource_exhausted", detail, { reason: "NOT_SAVED" });
    for (const waiter of this.#waiters.splice(0)) waiter.reject(failure);
    if (this.#closing !== undefined) return this.#end(failure);
    this.#schedule();
  }

  #savedUpTo(mark: number): Promise<void> {
    this.#schedule();
    return new Promise((resolve, reject) => this.#waiters.push({ mark, resolve, reject }));
  }

  #scan(): void {
    const { session, environment } = this.#parts;
    const scan = this.#isScanning ? undefined : session.nextScan(environment.now());
    if (scan === undefined) return;
    this.#isScanning = true;
    void this.#page(scan).then((page) => {
      this.#isScanning = false;
      session.scanned(scan, page, this.#at());
      this.#schedule();
    });
  }

  async #page({ peer, afterSeq }: Scan): Promise<ListMessagesResponse | undefined> {
    try {
      return await this.#parts.listMessages({ peer, afterSeq, pageSize: SCAN_PAGE, direction: Direction.FORWARD });
    } catch {
      return undefined; // The session asks again later.
    }
  }

  #finishClosing(): void {
    const closing = this.#closing;
    if (closing === undefined) return;
    const { session, saver, environment } = this.#parts;
    const isLate = environment.now() >= closing.until;
    const isConnected = session.state.kind === "connected" && !session.isStopped;
    if (isConnected && !isLate && !session.isIdle) return;
    if (isConnected && !isLate && this.#linker.finish()) return;
    if (!isLate && (session.isUnsaved || saver.isBusy)) return;
    this.#end(closedError());
  }

  #end(error: Error): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#stopTimer();
    this.#stopWatching();
    this.#linker.drop();
    for (const waiter of this.#waiters.splice(0)) waiter.reject(error);
    this.events.push({ number: 0, event: { type: "state", state: { kind: "closed" } } });
    this.events.close();
    this.#closing?.done();
  }

  #setTimer(): void {
    this.#stopTimer();
    if (this.#isClosed) return;
    const { session, environment } = this.#parts;
    const now = environment.now();
    const deadline = Math.min(session.nextDeadline(now) ?? Infinity, this.#closing?.until ?? Infinity);
    if (deadline === Infinity) return;
    this.#stopTimer = environment.after(Math.max(deadline - now, 0), () => this.#schedule());
  }

  #network(isOnline: boolean): void {
    const { session } = this.#parts;
    session.setOnline(isOnline);
    if (isOnline && !session.isStopped) session.reconnect(this.#at());
    this.#awake();
  }

  #awake(): void {
    this.#parts.session.probe(this.#parts.environment.now());
    this.#schedule();
  }

  #mustBeOpen(): void {
    if (this.isClosed) throw closedError();
  }

  #at(): At {
    const { environment } = this.#parts;
    return { now: environment.now(), wall: environment.wall(), dice: environment.dice() };
  }
}

function notTaken(why: NotTaken): DuologueError {
  const invalid = (field: string, message: string) =>
    new DuologueError("invalid_argument", message, { reason: "INVALID_FIELD", field });
  switch (why) {
    case "peer":
      return invalid("peer", "a user id is 1 to 64 of letters, digits and . _ - @ +");
    case "empty":
      return invalid("body.text", "the text is empty; 1 to 8192 bytes are allowed");
    case "too-long":
      return invalid("body.text", "the text is too long; 1 to 8192 bytes are allowed");
    case "id-in-use":
      return new DuologueError("already_exists", "a message of this id is in the outbox");
    case "full":
      return new DuologueError("resource_exhausted", "the outbox is full; wait until messages are stored", {
        reason: "OUTBOX_FULL",
      });
  }
}
