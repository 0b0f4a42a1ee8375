/** Two positions that only move forward. A read message has been delivered, too. */

import type { Cursor, Seq } from "./api.ts";

export const NO_CURSOR: Cursor = { delivered: 0n, read: 0n };

export function larger(one: Seq, other: Seq): Seq {
  return one > other ? one : other;
}

/** What was asked for, made consistent. */
export function cursor(delivered: Seq, read: Seq): Cursor {
  return { delivered: larger(delivered, read), read };
}

export function covers(one: Cursor, other: Cursor): boolean {
  return one.delivered >= other.delivered && one.read >= other.read;
}

export function furthest(one: Cursor, other: Cursor): Cursor {
  return { delivered: larger(one.delivered, other.delivered), read: larger(one.read, other.read) };
}
