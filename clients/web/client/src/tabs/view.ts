/**
 * What one tab shows its application: events, whichever tab they come from, with
 * every message once and in order. What was missed while the owner changed is
 * fetched.
 */

import type { Client, Event, MessageId, PendingMessage, Seq, UserId } from "../api.ts";
import type { Environment } from "../environment.ts";
import { EventHub } from "../events.ts";
import { RETRY_DELAY_MS } from "../limits.ts";

export class View {
  readonly hub: EventHub;
  readonly #messages: Client["messages"];
  readonly #environment: Environment;
  /** The last place shown, by conversation. */
  readonly #shown = new Map<UserId, Seq>();
  readonly #known = new Map<UserId, Seq>();
  readonly #pending = new Map<MessageId, PendingMessage>();
  /** Events go through one after another, since one may have to wait for a fetch. */
  #queue: Promise<void> = Promise.resolve();
  #number = 0;
  #taken: { readonly number: number; readonly resolve: () => void }[] = [];
  #upTo = 0;
  #isClosed = false;

  constructor(messages: Client["messages"], environment: Environment) {
    this.#messages = messages;
    this.#environment = environment;
    this.hub = new EventHub((upTo) => this.#tookUpTo(upTo));
  }

  /** Resolves when the application has taken it. */
  push(event: Event): Promise<void> {
    this.#note(event);
    const shown = this.#queue.then(() => this.#show(event));
    this.#queue = shown.then(() => undefined);
    return shown.then((number) => this.#takenBy(number));
  }

  /** Other tabs were shown this much: what is missing here is fetched. */
  catchUp(positions: ReadonlyMap<UserId, Seq>): void {
    for (const [peer, seq] of positions) {
      this.#exists(peer, seq);
      this.#queue = this.#queue.then(() => {
        const shown = this.#shown.get(peer);
        return shown !== undefined && shown < seq ? this.#fill(peer, seq + 1n) : undefined;
      });
    }
  }

  /** The highest place known of a conversation; 0: none. */
  known(peer: UserId): Seq {
    return this.#known.get(peer) ?? 0n;
  }

  pending(peer?: UserId): PendingMessage[] {
    const all = [...this.#pending.values()];
    return peer === undefined ? all : all.filter((it) => it.peer === peer);
  }

  setPending(messages: readonly PendingMessage[]): void {
    this.#pending.clear();
    for (const message of messages) this.#pending.set(message.messageId, message);
  }

  gone(id: MessageId): void {
    this.#pending.delete(id);
  }

  close(): void {
    this.#isClosed = true;
    void this.#queue.then(() => this.hub.close());
    for (const { resolve } of this.#taken.splice(0)) resolve();
  }

  /** What is true at once, even if the application is slow. */
  #note(event: Event): void {
    switch (event.type) {
      case "pending":
        this.#pending.set(event.message.messageId, event.message);
        break;
      case "stored":
        this.#pending.delete(event.messageId);
        this.#exists(event.peer, event.seq);
        break;
      case "rejected":
      case "abandoned":
        this.#pending.delete(event.messageId);
        break;
      case "message":
        this.#exists(event.message.peer, event.message.seq);
        break;
      case "history-changed":
        this.#known.clear();
        break;
      default:
        break;
    }
  }

  #exists(peer: UserId, seq: Seq): void {
    if (seq > this.known(peer)) this.#known.set(peer, seq);
  }

  /** Returns the number of the last event that it became. */
  async #show(event: Event): Promise<number> {
    if (event.type === "history-changed") this.#shown.clear();
    if (event.type !== "message") return this.#give(event);
    const { peer, seq } = event.message;
    const shown = this.#shown.get(peer);
    if (shown !== undefined && seq > shown + 1n) await this.#fill(peer, seq);
    const before = this.#shown.get(peer);
    if (before !== undefined && seq <= before) return this.#number;
    this.#shown.set(peer, seq);
    return this.#give(event);
  }

  /** Shows what lies between the last place shown and `before`. */
  async #fill(peer: UserId, before: Seq): Promise<void> {
    while (!this.#isClosed) {
      const after = this.#shown.get(peer) ?? 0n;
      if (after + 1n >= before) return;
      try {
        const page = await this.#messages(peer, { direction: "forward", after, before });
        for (const message of page.items) {
          this.#shown.set(peer, message.seq);
          this.#give({ type: "message", message });
        }
        // Another history: there is nothing to fill it with.
        if (page.items.length === 0) return;
      } catch {
        await new Promise<void>((resolve) => void this.#environment.after(RETRY_DELAY_MS, resolve));
      }
    }
  }

  #give(event: Event): number {
    this.#number += 1;
    this.hub.push({ number: this.#number, event });
    return this.#number;
  }

  #takenBy(number: number): Promise<void> {
    if (this.#isClosed) return Promise.resolve();
    return new Promise((resolve) => {
      this.#taken.push({ number, resolve });
      this.#tookUpTo(this.#upTo);
    });
  }

  #tookUpTo(upTo: number): void {
    this.#upTo = Math.max(this.#upTo, upTo);
    const taken = this.#taken.filter(({ number }) => number <= this.#upTo);
    this.#taken = this.#taken.filter(({ number }) => number > this.#upTo);
    for (const { resolve } of taken) resolve();
  }
}
