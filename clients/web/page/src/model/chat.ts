/**
 * One conversation: what an event, a page or a keystroke makes of it.
 */
import type {
  Conversation, Cursor, Message, PendingMessage, Seq, UserId,
} from "../api.ts";
import { complete, indexAt, merge, newestRun } from "./timeline.ts";
import type { Chat, Mark, Outgoing } from "./types.ts";

const NONE: Cursor = { delivered: 0n, read: 0n };

export function newChat(peer: UserId): Chat {
  return {
    peer, head: 0n, last: null, unread: 0, own: NONE, peerCursor: NONE,
    messages: [], outgoing: [], unreadFrom: null, opened: false, loading: "idle",
  };
}

/** Cursors only move forward. */
function ahead(a: Cursor, b: Cursor): Cursor {
  return {
    delivered: a.delivered > b.delivered ? a.delivered : b.delivered,
    read: a.read > b.read ? a.read : b.read,
  };
}

/** Messages of others in (after, upTo] that are here. */
function foreign(chat: Chat, me: UserId, after: Seq, upTo: Seq): number {
  let count = 0;
  for (let i = indexAt(chat.messages, after + 1n); i < chat.messages.length; i += 1) {
    const message = chat.messages[i];
    if (message === undefined || message.seq > upTo) break;
    if (message.sender !== me) count += 1;
  }
  return count;
}

/** What the server's list says of the conversation; what is known beyond it stays. */
export function listed(chat: Chat, conversation: Conversation, me: UserId): Chat {
  const { head } = conversation;
  const own = ahead(chat.own, conversation.own);
  const beyond = foreign(chat, me, own.read > head ? own.read : head, chat.head);
  // The server may not know yet how far the user has read here.
  const unread = own.read >= head ? 0 : Math.min(Number(conversation.unread), Number(head - own.read));
  const newer = head >= chat.head;
  return {
    ...chat,
    head: newer ? head : chat.head,
    last: newer ? (conversation.lastMessage ?? chat.last) : chat.last,
    own,
    peerCursor: ahead(chat.peerCursor, conversation.peerCursor),
    unread: unread + beyond,
  };
}

/** Live or read, messages take their places. */
export function arrived(chat: Chat, more: readonly Message[], me: UserId): Chat {
  const messages = merge(chat.messages, more);
  let { head, last, unread, unreadFrom } = chat;
  const allRead = chat.own.read >= chat.head || chat.unread === 0;
  for (const message of more) {
    if (message.seq > head) {
      if (message.sender !== me && message.seq > chat.own.read) unread += 1;
      head = message.seq;
      last = message;
    } else if (last === null || message.seq > last.seq) {
      last = message;
    }
  }
  const firstNew = more.find((message) => message.sender !== me && message.seq > chat.head);
  if (allRead && firstNew !== undefined && firstNew.seq > chat.own.read) unreadFrom = firstNew.seq;
  const ids = new Set(more.filter((m) => m.sender === me).map((m) => m.messageId));
  const outgoing = chat.outgoing.filter((item) => !ids.has(item.messageId));
  return placed({ ...chat, messages, head, last, unread, unreadFrom, outgoing }, me);
}

/** Stored messages of this device take their places once nothing is missing before. */
export function placed(chat: Chat, me: UserId): Chat {
  const end = newestRun(chat.messages)?.to ?? (chat.opened || chat.head <= 1n ? 0n : null);
  for (const item of chat.outgoing) {
    const { status } = item;
    if (status.kind !== "stored" || end === null) continue;
    if (status.seq > end + 1n) continue;
    const message: Message = {
      peer: chat.peer, seq: status.seq, messageId: item.messageId, sender: me,
      content: { kind: "text", text: item.text }, acceptedAt: status.acceptedAt,
    };
    return arrived(chat, [message], me);
  }
  return chat;
}

/** The user has read up to `seq`, here or elsewhere. */
export function readUpTo(chat: Chat, own: Cursor, me: UserId): Chat {
  const next = ahead(chat.own, own);
  if (next.read === chat.own.read) return { ...chat, own: next };
  const unread =
    next.read >= chat.head
      ? 0
      : complete(chat.messages, next.read, chat.head)
        ? foreign(chat, me, next.read, chat.head)
        : Math.min(chat.unread, Number(chat.head - next.read));
  return { ...chat, own: next, unread };
}

export function peerRead(chat: Chat, cursor: Cursor): Chat {
  return { ...chat, peerCursor: ahead(chat.peerCursor, cursor) };
}

/** A message is in the outbox: it takes the place of what the page put there itself. */
export function pending(chat: Chat, message: PendingMessage): Chat {
  if (chat.outgoing.some((item) => item.messageId === message.messageId)) return chat;
  const item: Outgoing = { ...message, status: { kind: "sending" } };
  const local = chat.outgoing.findIndex(
    (o) => isLocal(o.messageId) && o.text === message.text && o.status.kind === "sending",
  );
  const outgoing =
    local < 0 ? [...chat.outgoing, item] : chat.outgoing.map((o, i) => (i === local ? item : o));
  return { ...chat, outgoing };
}

/** Whether an id is the page's own: the outbox has given none yet. */
export function isLocal(messageId: string): boolean {
  return messageId.startsWith("local:");
}

export function setStatus(chat: Chat, messageId: string, status: Outgoing["status"]): Chat {
  const outgoing = chat.outgoing.map((o) => (o.messageId === messageId ? { ...o, status } : o));
  return { ...chat, outgoing };
}

export function without(chat: Chat, messageId: string): Chat {
  return { ...chat, outgoing: chat.outgoing.filter((o) => o.messageId !== messageId) };
}

/** What opening shows as unread. */
export function firstUnread(chat: Chat): Seq | null {
  return chat.unread > 0 ? chat.own.read + 1n : null;
}

/** How far an own message has come. */
export function markOf(chat: Chat, me: UserId, seq: Seq): Mark {
  if (chat.peer === me) return "stored";
  if (seq <= chat.peerCursor.read) return "read";
  return seq <= chat.peerCursor.delivered ? "delivered" : "stored";
}

export function markOfOutgoing(item: Outgoing): Mark {
  return item.status.kind;
}
