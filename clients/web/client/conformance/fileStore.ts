/**
 * What a client keeps, in one file. A write replaces the file as a whole, and
 * resolves when the disk has it: whatever moment the process is killed at, the file
 * holds all of a write or nothing of it.
 */

import { readFileSync } from "node:fs";
import { open, rename } from "node:fs/promises";
import { dirname } from "node:path";

import type { ClientStore } from "../src/api.ts";

export class FileStore implements ClientStore {
  readonly durable = true;
  readonly #file: string;
  readonly #records: Map<string, unknown>;

  constructor(file: string) {
    this.#file = file;
    this.#records = new Map(read(file));
  }

  read(): Promise<Map<string, unknown>> {
    return Promise.resolve(new Map(this.#records));
  }

  /** The client has one write under way at a time. */
  async write(changes: Map<string, unknown>): Promise<void> {
    for (const [key, value] of changes) {
      if (value === undefined) this.#records.delete(key);
      else this.#records.set(key, value);
    }
    const next = `${this.#file}.next`;
    const handle = await open(next, "w");
    try {
      await handle.writeFile(JSON.stringify([...this.#records]));
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(next, this.#file);
    const folder = await open(dirname(this.#file), "r");
    try {
      await folder.sync();
    } finally {
      await folder.close();
    }
  }

  close(): void {
    // Nothing is open between two writes.
  }
}

function read(file: string): [string, unknown][] {
  try {
    return JSON.parse(readFileSync(file, "utf8")) as [string, unknown][];
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw error;
  }
}
