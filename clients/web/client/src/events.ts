/**
 * Hands events to the application: to listeners and iterators, in order, none
 * dropped. An event is taken once every listener was called and every iterator has
 * asked for the next one. While nobody listens, or somebody is slow, events wait.
 */

import type { Event } from "./api.ts";
import { EVENT_QUEUE } from "./limits.ts";

type Listener = (event: Event) => void;

interface Item {
  readonly number: number;
  readonly event: Event;
}

export class EventHub {
  readonly #queue: Item[] = [];
  readonly #listeners = new Set<Listener>();
  readonly #readers = new Set<Reader>();
  readonly #onTaken: (upTo: number) => void;
  #dispatched = 0;
  #told = 0;
  #isClosed = false;
  #isScheduled = false;

  /** `onTaken`: the application has dealt with every event up to this number. */
  constructor(onTaken: (upTo: number) => void) {
    this.#onTaken = onTaken;
  }

  get hasRoom(): boolean {
    return this.#queue.length < EVENT_QUEUE;
  }

  /** Numbers rise; an event of no number (0) is nothing that is kept. */
  push(item: Item): void {
    if (this.#isClosed) return;
    this.#queue.push(item);
    this.#schedule();
  }

  /** What was pushed is still handed over, then iterators end. */
  close(): void {
    this.#isClosed = true;
    this.#schedule();
  }

  on(listener: Listener): () => void {
    // Its own function each time, so that one listener may be there twice.
    const own: Listener = (event) => listener(event);
    this.#listeners.add(own);
    this.#schedule();
    return () => void this.#listeners.delete(own);
  }

  iterate(): AsyncIterator<Event> {
    const reader = new Reader(() => this.#schedule());
    this.#readers.add(reader);
    this.#schedule();
    const done = (): Promise<IteratorResult<Event>> => {
      this.#readers.delete(reader);
      this.#schedule();
      return Promise.resolve({ done: true, value: undefined });
    };
    return {
      next: async () => {
        const item = await reader.next();
        return item === undefined ? done() : { done: false, value: item.event };
      },
      return: done,
    };
  }

  /** Never within the caller's own call, which may be in the middle of something. */
  #schedule(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    queueMicrotask(() => {
      this.#isScheduled = false;
      this.#dispatch();
    });
  }

  #dispatch(): void {
    const readers = [...this.#readers];
    while (this.#listeners.size + readers.length > 0 && readers.every((it) => it.hasRoom)) {
      const item = this.#queue.shift();
      if (item === undefined) break;
      for (const listener of [...this.#listeners]) call(listener, item.event);
      for (const reader of readers) reader.push(item);
      this.#dispatched = Math.max(this.#dispatched, item.number);
    }
    this.#tellTaken();
    if (this.#isClosed && this.#queue.length === 0) for (const reader of readers) reader.end();
  }

  #tellTaken(): void {
    const taken = Math.min(this.#dispatched, ...[...this.#readers].map((it) => it.takenOf(this.#dispatched)));
    if (taken <= this.#told) return;
    this.#told = taken;
    this.#onTaken(taken);
  }
}

/** A listener's fault is the application's: it is reported, and harms no other. */
function call(listener: Listener, event: Event): void {
  try {
    listener(event);
  } catch (error) {
    setTimeout(() => {
      throw error;
    });
  }
}

/** One iterator's part of the events. */
class Reader {
  readonly #items: Item[] = [];
  readonly #onTaken: () => void;
  #waiting: ((item: Item | undefined) => void)[] = [];
  /** Given out, and not known to be dealt with. */
  #current: Item | undefined;
  #isEnded = false;

  constructor(onTaken: () => void) {
    this.#onTaken = onTaken;
  }

  get hasRoom(): boolean {
    return this.#items.length < EVENT_QUEUE;
  }

  /** The number up to which everything is dealt with. */
  takenOf(dispatched: number): number {
    const first = [this.#current, ...this.#items].find((it) => it !== undefined && it.number > 0);
    return first === undefined ? dispatched : first.number - 1;
  }

  /** Asking says that the one before is dealt with. */
  next(): Promise<Item | undefined> {
    this.#current = this.#items.shift();
    this.#onTaken();
    if (this.#current !== undefined || this.#isEnded) return Promise.resolve(this.#current);
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  push(item: Item): void {
    const waiting = this.#waiting.shift();
    if (waiting === undefined) {
      this.#items.push(item);
      return;
    }
    this.#current = item;
    waiting(item);
  }

  end(): void {
    this.#isEnded = true;
    for (const waiting of this.#waiting.splice(0)) waiting(undefined);
  }
}
