/** The store of a client that was given none. */

import type { Client, ClientStore, UserId } from "../api.ts";
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
  if (globalThis.indexedDB === undefined) return inMemory("there is no IndexedDB here");
  try {
    return { store: await IndexedDbStore.open(user), durability: { durable: true } };
  } catch (error) {
    // Private windows, blocked site data, a full disk.
    const why = error instanceof Error ? error.name : "an unknown error";
    return inMemory(`IndexedDB cannot be used (${why})`);
  }
}

function inMemory(reason: string): OpenedStore {
  return { store: new MemoryStore(), durability: { durable: false, reason } };
}
