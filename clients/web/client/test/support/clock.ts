/** A clock that the test moves, and waiting until something is true. */

import type { Environment, NetworkHandlers } from "../../src/environment.ts";
import type { Tab } from "./browser.ts";
import { Random } from "./random.ts";

export class Clock {
  /** Seeds the randomness of whoever uses this clock. */
  seeds = 1;
  /** How many timers have ended. */
  fired = 0;
  #now = 0;
  #timers: { readonly at: number; readonly then: () => void }[] = [];

  now(): number {
    return this.#now;
  }

  after(ms: number, then: () => void): () => void {
    const timer = { at: this.#now + ms, then };
    this.#timers.push(timer);
    return () => void (this.#timers = this.#timers.filter((it) => it !== timer));
  }

  /** Time passes, in steps, with everything done in between that is due. */
  async pass(ms: number): Promise<void> {
    const end = this.#now + ms;
    for (;;) {
      await settle();
      const next = this.#timers.filter(({ at }) => at <= end).sort((one, other) => one.at - other.at)[0];
      if (next === undefined) break;
      this.#timers = this.#timers.filter((it) => it !== next);
      this.#now = Math.max(this.#now, next.at);
      this.fired += 1;
      next.then();
    }
    this.#now = Math.max(this.#now, end);
    await settle();
  }
}

/** Whatever is under way has come to rest, but for timers. */
export async function settle(turns = 30): Promise<void> {
  for (let turn = 0; turn < turns; turn += 1) await new Promise((resolve) => setImmediate(resolve));
}

/** The environment of one tab. */
export function environmentOf(clock: Clock, tab?: Tab): Environment & { handlers: NetworkHandlers[] } {
  const random = new Random(clock.seeds++);
  const handlers: NetworkHandlers[] = [];
  return {
    handlers,
    now: () => clock.now(),
    wall: () => 1_800_000_000_000 + clock.now(),
    dice: () => random.next(),
    bytes: (count) => Uint8Array.from({ length: count }, () => random.below(256)),
    after: (ms, then) => clock.after(ms, () => (tab === undefined ? then() : tab.run(then))),
    isOnline: true,
    watch: (those) => {
      handlers.push(those);
      return () => void handlers.splice(handlers.indexOf(those), 1);
    },
  };
}
