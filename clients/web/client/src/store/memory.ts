/** Keeps nothing beyond the page or the process. */

import type { ClientStore } from "../api.ts";

export class MemoryStore implements ClientStore {
  readonly durable = false;
  readonly #records = new Map<string, unknown>();

  read(): Promise<Map<string, unknown>> {
    return Promise.resolve(new Map(this.#records));
  }

  write(changes: Map<string, unknown>): Promise<void> {
    for (const [key, value] of changes) {
      if (value === undefined) this.#records.delete(key);
      else this.#records.set(key, value);
    }
    return Promise.resolve();
  }

  close(): void {
    // What is held goes with this object.
  }
}
