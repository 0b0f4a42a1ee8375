/**
 * When state is to be saved, and what has been: every need has a rising number, its
 * mark, and what depends on it waits until a save that began after it is done.
 */

import { SAVE_INTERVAL_MS } from "../limits.ts";

export class Saves {
  #needed = 0;
  #done = 0;
  #due: number | undefined;
  /** A save has begun and is not done, or has failed. */
  #isHeld = false;

  /** Something must be saved before what depends on it goes on. */
  need(): number {
    this.#needed += 1;
    return this.#needed;
  }

  /** Something is safe to lose, but better saved. */
  soon(now: number): void {
    this.#due ??= now + SAVE_INTERVAL_MS;
  }

  get done(): number {
    return this.#done;
  }

  /** When the next save is to begin by itself: not while another has not succeeded. */
  get due(): number | undefined {
    return this.#isHeld ? undefined : this.#due;
  }

  isNeeded(now: number): boolean {
    return this.#needed > this.#done || (this.#due !== undefined && this.#due <= now);
  }

  /** Whether there is something that a later save would keep. */
  get isUnsaved(): boolean {
    return this.#needed > this.#done || this.#due !== undefined;
  }

  /** A save begins; `finish` takes its mark. */
  begin(): number {
    this.#due = undefined;
    this.#isHeld = true;
    return this.#needed;
  }

  finish(mark: number): void {
    this.#done = Math.max(this.#done, mark);
    this.#isHeld = false;
  }
}
