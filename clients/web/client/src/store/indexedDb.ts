/**
 * Keeps state in IndexedDB: one database per user, all changes of a write in one
 * transaction that is on disk before it counts.
 *
 * Who opens the database owns it: a write of an owner before fails, so that a tab
 * which slept while another took over cannot undo what that one wrote.
 */

import type { ClientStore, UserId } from "../api.ts";
import { DuologueError } from "../errors.ts";

const STORE = "state";
const OWNER = "owner";
const VERSION = 1;

/** The reason of the error of a write by somebody who is no longer the owner. */
export const TAKEN_OVER = "STORE_TAKEN_OVER";

export class IndexedDbStore implements ClientStore {
  readonly durable = true;
  readonly #database: IDBDatabase;
  readonly #owner: string;

  private constructor(database: IDBDatabase, owner: string) {
    this.#database = database;
    this.#owner = owner;
    // Somebody deletes it, or a later version of this package changes it.
    database.onversionchange = () => database.close();
  }

  /** Opens the user's database and becomes its owner. */
  static async open(user: UserId, factory: IDBFactory = indexedDB): Promise<IndexedDbStore> {
    const database = await openDatabase(factory, `duologue/${user}`);
    const store = new IndexedDbStore(database, crypto.randomUUID());
    await store.#change((records) => void records.put(store.#owner, OWNER));
    return store;
  }

  async read(): Promise<Map<string, unknown>> {
    const records = this.#database.transaction(STORE, "readonly").objectStore(STORE);
    // Both within one transaction, so that they belong together.
    const [keys, values] = await Promise.all([done(records.getAllKeys()), done(records.getAll())]);
    const all = new Map(keys.map((key, index) => [String(key), values[index] as unknown]));
    all.delete(OWNER);
    return all;
  }

  write(changes: Map<string, unknown>): Promise<void> {
    return this.#change((records, transaction) => {
      const owner = records.get(OWNER);
      owner.onsuccess = () => {
        if (owner.result !== this.#owner) {
          transaction.abort();
          return;
        }
        for (const [key, value] of changes) {
          if (value === undefined) records.delete(key);
          else records.put(value, key);
        }
      };
    });
  }

  close(): void {
    this.#database.close();
  }

  #change(change: (records: IDBObjectStore, transaction: IDBTransaction) => void): Promise<void> {
    return new Promise((resolve, reject) => {
      const transaction = this.#database.transaction(STORE, "readwrite", { durability: "strict" });
      transaction.oncomplete = () => resolve();
      // Aborted without an error of its own: by the look at the owner.
      transaction.onabort = () => reject(transaction.error ?? takenOver());
      change(transaction.objectStore(STORE), transaction);
    });
  }
}

function takenOver(): DuologueError {
  return new DuologueError("aborted", "another tab owns the stored state", { reason: TAKEN_OVER });
}

async function openDatabase(factory: IDBFactory, name: string): Promise<IDBDatabase> {
  const request = factory.open(name, VERSION);
  request.onupgradeneeded = () => void request.result.createObjectStore(STORE);
  return done(request);
}

function done<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error ?? new Error("IndexedDB failed"));
  });
}
