import assert from "node:assert/strict";
import { setTimeout } from "node:timers/promises";
import { isDeepStrictEqual } from "node:util";

/** Longer than a page needs on the slowest machine. */
const PATIENCE_MS = 10_000;

/**
 * Looks until it sees what is wanted: a page draws when it comes to it, and a look that
 * is not repeated is a guess about when. Fails with what was seen last.
 */
export async function eventually<T>(look: () => Promise<T>, wanted: T, why?: string): Promise<void> {
  const end = performance.now() + PATIENCE_MS;
  for (;;) {
    const seen = await look();
    if (isDeepStrictEqual(seen, wanted)) return;
    if (performance.now() > end) assert.deepEqual(seen, wanted, why);
    await setTimeout(50);
  }
}
