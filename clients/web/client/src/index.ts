/**
 * TypeScript client of Duologue, a one-on-one chat. See the README for an example.
 *
 * @packageDocumentation
 */

export type * from "./api.ts";
export { openClient } from "./client.ts";
export { DuologueError } from "./errors.ts";
export { IndexedDbStore } from "./store/indexedDb.ts";
export { MemoryStore } from "./store/memory.ts";
export { openShared } from "./tabs.ts";
