/** Writes what has changed of the session's state, one write at a time. */

import type { ClientStore } from "./api.ts";
import { type Saved, toRecords } from "./session/records.ts";

export class Saver {
  readonly #store: ClientStore;
  /** What the store holds, as text by key. */
  #written: Map<string, string>;
  isBusy = false;

  /** `records`: what the store holds now. */
  constructor(store: ClientStore, records: ReadonlyMap<string, unknown>) {
    this.#store = store;
    this.#written = new Map([...records].map(([key, value]) => [key, asText(value)]));
  }

  /** Resolves once all of it is durable. */
  async save(state: Saved): Promise<void> {
    const records = toRecords(state);
    const texts = new Map([...records].map(([key, value]) => [key, asText(value)]));
    const changes = new Map<string, unknown>();
    for (const [key, text] of texts) if (this.#written.get(key) !== text) changes.set(key, records.get(key));
    for (const key of this.#written.keys()) if (!texts.has(key)) changes.set(key, undefined);
    if (changes.size === 0) return;
    this.isBusy = true;
    try {
      await this.#store.write(changes);
      this.#written = texts;
    } finally {
      this.isBusy = false;
    }
  }
}

function asText(value: unknown): string {
  return JSON.stringify(value) ?? "";
}
