/** The store of a client that was given none. */

import type { Client, ClientStore, UserId } from "../api.ts";
import { STORE_TIMEOUT_MS } from "../limits.ts";
import { IndexedDbStore } from "./indexedDb.ts";
import { MemoryStore } from "./memory.ts";

export interface OpenedStore {
  readonly store: ClientStore;
  readonly durability: Client["durability"];
}

/** IndexedDB where there is one that works; else memory, and why. */
export async function openStore(user: UserId, given: ClientStore | undefined): Promise<OpenedStore> {
  if (given?.durable) return { store: given, durability: { durable: true } };
  if (given) return { store: given, durability: { durable: false, reason: "the given store keeps nothing" } };
  try {
    // Where site data is blocked, to look is forbidden already.
    if (globalThis.indexedDB === undefined) return inMemory("there is no IndexedDB here");
    return { store: await inTime(IndexedDbStore.open(user)), durability: { durable: true } };
  } catch (error) {
    // Private windows, blocked site data, a full disk.
    const why = error instanceof Error ? error.name : "an unknown error";
    return inMemory(`IndexedDB cannot be used (${why})`);
  }
}

/** A browser whose IndexedDB is stuck says nothing at all. */
async function inTime(opening: Promise<IndexedDbStore>): Promise<IndexedDbStore> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new DOMException("no answer", "TimeoutError")), STORE_TIMEOUT_MS);
  });
  try {
    return await Promise.race([opening, late]);
  } catch (error) {
    void opening.then((store) => store.close()).catch(() => undefined);
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

function inMemory(reason: string): OpenedStore {
  return { store: new MemoryStore(), durability: { durable: false, reason } };
}
