/** How long to wait before the next try: exponential, with full jitter. */

import { BACKOFF_MAX_MS, BACKOFF_MIN_MS, MAX_RETRY_AFTER_MS } from "./limits.ts";

/** Counts failures since the last success. */
export class Backoff {
  #failures = 0;

  get failures(): number {
    return this.#failures;
  }

  /**
   * The delay after one more failure. `dice` is a random number of [0, 1); a delay
   * that the server asked for is waited in full, and the jitter comes on top, so
   * that clients told the same do not come back at once.
   */
  next(askedMs: number | undefined, dice: number): number {
    const ceiling = Math.min(BACKOFF_MIN_MS * 2 ** Math.min(this.#failures, 20), BACKOFF_MAX_MS);
    this.#failures += 1;
    const asked = Math.min(Math.max(askedMs ?? 0, 0), MAX_RETRY_AFTER_MS);
    return asked + Math.floor(dice * (ceiling + 1));
  }

  reset(): void {
    this.#failures = 0;
  }
}
