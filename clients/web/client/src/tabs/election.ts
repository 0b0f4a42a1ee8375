/**
 * Which tab is the owner: the one that holds a Web Lock. The others wait for it in
 * the browser's own queue, so that the next one has it as soon as a tab closes or
 * crashes. An owner that is frozen holds it on; from that one it is stolen.
 */

/** What is used of `navigator.locks`. */
export interface Locks {
  request(
    name: string,
    options: { readonly steal?: boolean; readonly signal?: AbortSignal },
    granted: () => Promise<void>,
  ): Promise<unknown>;
}

export interface ElectionHandlers {
  /** This tab is the owner from now on. */
  elected(): void;
  /** Another tab has taken over. */
  deposed(): void;
}

export class Election {
  readonly #locks: Locks;
  readonly #name: string;
  readonly #handlers: ElectionHandlers;
  /** Names the request that counts; answers to others are ignored. */
  #round = 0;
  #waiting: AbortController | undefined;
  #release: (() => void) | undefined;

  constructor(locks: Locks, name: string, handlers: ElectionHandlers) {
    this.#locks = locks;
    this.#name = name;
    this.#handlers = handlers;
  }

  get isOwner(): boolean {
    return this.#release !== undefined;
  }

  /** Waits in the queue. */
  stand(): void {
    this.resign();
    this.#waiting = new AbortController();
    this.#request({ signal: this.#waiting.signal });
  }

  /** Takes it from an owner that shows no sign of life. */
  steal(): void {
    this.resign();
    this.#request({ steal: true });
  }

  /** Gives it up, or no longer waits. */
  resign(): void {
    this.#round += 1;
    this.#waiting?.abort();
    this.#waiting = undefined;
    this.#release?.();
    this.#release = undefined;
  }

  #request(options: { steal?: boolean; signal?: AbortSignal }): void {
    const round = this.#round;
    const held = this.#locks.request(this.#name, options, () => {
      if (round !== this.#round) return Promise.resolve();
      const released = new Promise<void>((resolve) => (this.#release = resolve));
      this.#handlers.elected();
      return released;
    });
    held.catch(() => {
      // Not of our own doing: it was stolen.
      if (round !== this.#round || this.#release === undefined) return;
      this.#release = undefined;
      this.#handlers.deposed();
    });
  }
}
