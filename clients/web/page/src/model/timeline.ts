/**
 * Messages of one conversation, by rising seq: pages of history and live ones become
 * one run, and what is missing between them is known.
 */
import type { Message, Seq } from "../api.ts";

/** The place of the first message with at least this seq. */
export function indexAt(messages: readonly Message[], seq: Seq): number {
  let low = 0;
  let high = messages.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    const at = messages[middle];
    if (at !== undefined && at.seq < seq) low = middle + 1;
    else high = middle;
  }
  return low;
}

export function holds(messages: readonly Message[], seq: Seq): boolean {
  return messages[indexAt(messages, seq)]?.seq === seq;
}

/** Both, each seq once. A message that is here already stays: it cannot change. */
export function merge(here: readonly Message[], more: readonly Message[]): readonly Message[] {
  const added = more
    .filter((message) => !holds(here, message.seq))
    .sort((a, b) => (a.seq < b.seq ? -1 : a.seq > b.seq ? 1 : 0));
  const fresh = added.filter((message, i) => i === 0 || message.seq !== added[i - 1]?.seq);
  const first = fresh[0];
  const last = here[here.length - 1];
  if (first === undefined) return here;
  if (last === undefined || first.seq > last.seq) return [...here, ...fresh];

  const merged: Message[] = [];
  let next = 0;
  for (const message of here) {
    for (let f = fresh[next]; f !== undefined && f.seq < message.seq; f = fresh[next]) {
      merged.push(f);
      next += 1;
    }
    merged.push(message);
  }
  return [...merged, ...fresh.slice(next)];
}

/** The first and last place of a run without gaps that ends at the newest message. */
export function newestRun(messages: readonly Message[]): { from: Seq; to: Seq } | null {
  let i = messages.length - 1;
  const last = messages[i];
  if (last === undefined) return null;
  let from = last.seq;
  for (i -= 1; messages[i]?.seq === from - 1n; i -= 1) from -= 1n;
  return { from, to: last.seq };
}

/** Whether every message in (after, upTo] is here. */
export function complete(messages: readonly Message[], after: Seq, upTo: Seq): boolean {
  if (upTo <= after) return true;
  const count = indexAt(messages, upTo + 1n) - indexAt(messages, after + 1n);
  return BigInt(count) === upTo - after;
}

/** What of the conversation is drawn: from one seq to another, or to its end. */
export interface Span {
  from: Seq;
  /** Null: to the end, whatever comes. */
  to: Seq | null;
}

/** The last `count` messages, and whatever follows. */
export function tailSpan(messages: readonly Message[], count: number): Span {
  return { from: messages[Math.max(0, messages.length - count)]?.seq ?? 0n, to: null };
}

/** About `count` messages on both sides of a seq. */
export function spanAround(messages: readonly Message[], seq: Seq, count: number): Span {
  const at = indexAt(messages, seq);
  const to = at + count;
  return {
    from: messages[Math.max(0, at - count)]?.seq ?? 0n,
    to: to >= messages.length - 1 ? null : (messages[to]?.seq ?? null),
  };
}

/** The span moved towards older messages, and not longer than `most`. */
export function extendUp(messages: readonly Message[], span: Span, step: number, most: number): Span {
  const start = Math.max(0, indexAt(messages, span.from) - step);
  const end = span.to === null ? messages.length : indexAt(messages, span.to + 1n);
  return {
    from: messages[start]?.seq ?? 0n,
    to: end - start > most ? (messages[start + most - 1]?.seq ?? null) : span.to,
  };
}

/** The span moved towards newer messages, and not longer than `most`. */
export function extendDown(messages: readonly Message[], span: Span, step: number, most: number): Span {
  const start = indexAt(messages, span.from);
  const end = span.to === null ? messages.length : indexAt(messages, span.to + 1n);
  const next = Math.min(messages.length, end + step);
  return {
    from: messages[Math.max(start, next - most)]?.seq ?? 0n,
    to: next === messages.length ? null : (messages[next - 1]?.seq ?? null),
  };
}
