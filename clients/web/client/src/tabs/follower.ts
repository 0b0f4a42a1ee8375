/**
 * What a tab has asked of the owner and has no answer to, and what it has written
 * and not heard the end of. A new owner is asked for all of it again: it recognises
 * what it has, by the message's id.
 */

import type { Event, MessageId, Seq, UserId } from "../api.ts";
import type { Environment } from "../environment.ts";
import { DuologueError } from "../errors.ts";
import { OWNER_PROBE_MS, OWNER_TIMEOUT_MS } from "../limits.ts";
import type { Letter } from "../session.ts";
import type { Ask, Told } from "./messages.ts";

type Question = Extract<Ask, { request: number }>;
/** A question but for its number. */
export type Numberless = Question extends infer Q ? (Q extends Question ? Omit<Q, "request"> : never) : never;

interface Waiting {
  ask: Question;
  resolve(): void;
  reject(error: Error): void;
}

export class Follower {
  readonly #say: (ask: Ask) => void;
  readonly #environment: Environment;
  readonly #waiting = new Map<number, Waiting>();
  readonly #written = new Map<MessageId, Letter>();
  /** How far this tab has read, as long as no owner is known to know. */
  readonly #reads = new Map<UserId, Seq>();
  #requests = 0;
  #stopTimer: () => void = () => undefined;

  constructor(say: (ask: Ask) => void, environment: Environment) {
    this.#say = say;
    this.#environment = environment;
  }

  /** Resolves when the owner has answered. */
  ask(question: Numberless): Promise<void> {
    this.#requests += 1;
    const ask = { ...question, request: this.#requests } as Question;
    return new Promise((resolve, reject) => {
      this.#waiting.set(ask.request, { ask, resolve, reject });
      this.#say(ask);
    });
  }

  /** This tab has written a message; `knownSeq` was known to exist then. */
  wrote(letter: Letter, knownSeq: Seq): void {
    this.#written.set(letter.id, { ...letter, triedAfter: knownSeq });
  }

  read(peer: UserId, seq: Seq): void {
    if (seq <= (this.#reads.get(peer) ?? 0n)) return;
    this.#reads.set(peer, seq);
    this.#say({ kind: "read", peer, seq });
  }

  takeReads(): Extract<Ask, { kind: "read" }>[] {
    const reads = [...this.#reads].map(([peer, seq]) => ({ kind: "read", peer, seq }) as const);
    this.#reads.clear();
    return reads;
  }

  /** An answer. */
  answered(told: Extract<Told, { request: number }>): void {
    const waiting = this.#waiting.get(told.request);
    if (waiting === undefined) return;
    this.#waiting.delete(told.request);
    if (told.kind === "failed") {
      if (waiting.ask.kind === "send") this.#written.delete(waiting.ask.letter.id);
      const { code, message, ...details } = told.failure;
      return waiting.reject(new DuologueError(code, message, details));
    }
    if (told.kind === "kept" && waiting.ask.kind === "send") this.kept(waiting.ask.letter.id, told.afterSeq);
    waiting.resolve();
  }

  /** The owner has it: it knows best where an earlier copy may be. */
  kept(id: MessageId, afterSeq: Seq): void {
    const letter = this.#written.get(id);
    if (letter !== undefined) this.#written.set(id, { ...letter, triedAfter: afterSeq });
  }

  forget(id: MessageId): void {
    this.#written.delete(id);
  }

  note(event: Event): void {
    if (event.type === "stored" || event.type === "rejected" || event.type === "abandoned") this.#written.delete(event.messageId);
    if (event.type === "own-cursor" && (this.#reads.get(event.peer) ?? 0n) <= event.read) this.#reads.delete(event.peer);
    if (event.type !== "history-changed") return;
    this.#reads.clear();
    for (const [id, letter] of this.#written) this.#written.set(id, { ...letter, triedAfter: 0n });
  }

  /** What this tab has written and not heard the end of, oldest first. */
  written(): Letter[] {
    return [...this.#written.values()];
  }

  /** Takes every question that has no answer. */
  takeQuestions(): Waiting[] {
    const waiting = [...this.#waiting.values()];
    this.#waiting.clear();
    return waiting;
  }

  /** There is a new owner: everything is asked again. */
  askAgain(): void {
    const reads = this.takeReads();
    for (const { peer, seq } of reads) this.read(peer, seq);
    const asked = new Set<MessageId>();
    for (const waiting of this.#waiting.values()) {
      const { ask } = waiting;
      if (ask.kind === "send") {
        asked.add(ask.letter.id);
        // The owner before may have sent it.
        waiting.ask = { ...ask, letter: this.#written.get(ask.letter.id) ?? ask.letter };
      }
      this.#say(waiting.ask);
    }
    for (const letter of this.written()) {
      if (!asked.has(letter.id)) void this.ask({ kind: "send", letter }).catch(() => undefined);
    }
  }

  /**
   * Asks the owner for signs of life, until `unwatch`; `silent` is called when there
   * is none. Timers of hidden tabs may be late; so is the judgement then, not wrong.
   */
  watch(silent: () => void, askNow = false): void {
    this.#stopTimer();
    if (!askNow) {
      this.#stopTimer = this.#environment.after(OWNER_PROBE_MS, () => this.watch(silent, true));
      return;
    }
    const askedAt = this.#environment.now();
    this.#say({ kind: "probe" });
    // Not all at once, if several tabs notice.
    const patience = OWNER_TIMEOUT_MS * (1 + this.#environment.dice() / 4);
    this.#stopTimer = this.#environment.after(patience, () => {
      // This tab slept itself: an answer may be waiting.
      const hasSlept = this.#environment.now() - askedAt > 2 * patience;
      if (hasSlept) this.watch(silent, true);
      else silent();
    });
  }

  unwatch(): void {
    this.#stopTimer();
  }

  close(error: Error): void {
    this.unwatch();
    for (const { reject } of this.takeQuestions()) reject(error);
  }
}
