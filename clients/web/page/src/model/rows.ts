/**
 * A conversation as rows: messages, and what stands between them.
 */
import type { Message, Seq, UserId } from "../api.ts";
import { markOf, markOfOutgoing } from "./chat.ts";
import { indexAt, type Span } from "./timeline.ts";
import type { Chat, Mark, Outgoing } from "./types.ts";
import { dayOf } from "./words.ts";

export type Row =
  | { kind: "start"; key: string }
  | { kind: "older"; key: string }
  | { kind: "day"; key: string; time: Date }
  | { kind: "unread"; key: string }
  /** Messages in (after, before) are not here. */
  | { kind: "gap"; key: string; after: Seq; before: Seq }
  | { kind: "message"; key: string; seq: Seq; message: Message; own: boolean; mark: Mark | null; first: boolean; newest: boolean }
  | { kind: "outgoing"; key: string; item: Outgoing; mark: Mark; first: boolean; newest: boolean };

/** Messages of one sender that follow each other within this time stand close. */
const TOGETHER_MS = 5 * 60_000;

export function rowsOf(chat: Chat, me: UserId, span: Span): Row[] {
  const { messages } = chat;
  const start = indexAt(messages, span.from);
  const end = span.to === null ? messages.length : indexAt(messages, span.to + 1n);
  const rows: Row[] = [top(chat, start)];
  const newestOwn = lastOwn(chat, me);
  const unreadAt = unreadMark(chat, me);
  for (let i = start; i < end; i += 1) {
    const message = messages[i];
    const before = messages[i - 1];
    if (message === undefined) continue;
    if (before !== undefined && before.seq + 1n !== message.seq) {
      rows.push({ kind: "gap", key: `gap:${before.seq}`, after: before.seq, before: message.seq });
    }
    // Of what is not here, nothing is said: rows above the reader may come, but not go.
    const unknown = before === undefined && message.seq !== 1n;
    const newDay = !unknown && (before === undefined || dayOf(before.acceptedAt) !== dayOf(message.acceptedAt));
    if (newDay) rows.push({ kind: "day", key: `day:${dayOf(message.acceptedAt)}`, time: message.acceptedAt });
    const unread = message.seq === unreadAt;
    if (unread) rows.push({ kind: "unread", key: "unread" });
    const own = message.sender === me;
    rows.push({
      kind: "message", key: keyOf(message.sender, message.messageId), seq: message.seq, message, own,
      mark: own ? markOf(chat, me, message.seq) : null,
      first: newDay || unread || !(unknown || together(before, message)),
      newest: own && message.seq === newestOwn,
    });
  }
  return span.to === null ? [...rows, ...bottom(chat, me)] : rows;
}

function top(chat: Chat, start: number): Row {
  const first = chat.messages[start];
  const all = first === undefined ? chat.head === 0n : first.seq === 1n;
  return all && chat.opened ? { kind: "start", key: "start" } : { kind: "older", key: "older" };
}

/** What follows the last message that is here: what is missing, and what is being sent. */
function bottom(chat: Chat, me: UserId): Row[] {
  const rows: Row[] = [];
  const last = chat.messages[chat.messages.length - 1];
  if (last !== undefined && last.seq < chat.head) {
    rows.push({ kind: "gap", key: `gap:${last.seq}`, after: last.seq, before: chat.head + 1n });
  }
  chat.outgoing.forEach((item, i) => {
    rows.push({
      kind: "outgoing", key: keyOf(me, item.messageId), item, mark: markOfOutgoing(item),
      first: i === 0 && last?.sender !== me, newest: i === chat.outgoing.length - 1,
    });
  });
  return rows;
}

function lastOwn(chat: Chat, me: UserId): Seq | null {
  if (chat.outgoing.length > 0) return null;
  for (let i = chat.messages.length - 1; i >= 0; i -= 1) {
    const message = chat.messages[i];
    if (message?.sender === me) return message.seq;
  }
  return null;
}

/** The first unread message of somebody else, where it is here. */
export function unreadMark(chat: Chat, me: UserId): Seq | null {
  if (chat.unreadFrom === null) return null;
  for (let i = indexAt(chat.messages, chat.unreadFrom); i < chat.messages.length; i += 1) {
    const message = chat.messages[i];
    if (message !== undefined && message.sender !== me) return message.seq;
  }
  return null;
}

function together(a: Message | undefined, b: Message): boolean {
  return a !== undefined && a.sender === b.sender && b.acceptedAt.getTime() - a.acceptedAt.getTime() < TOGETHER_MS;
}

/** An id is unique only together with its sender. */
export function keyOf(sender: UserId, messageId: string): string {
  return `${sender}/${messageId}`;
}
