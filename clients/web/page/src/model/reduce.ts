/**
 * The page's state after something happened: an event of the client, the answer to a
 * call, or something the user did. Pure.
 */
import type {
  Conversation, Event, Message, PendingMessage, Presence, Seq, UserId,
} from "../api.ts";
import * as chats from "./chat.ts";
import { announcement } from "./words.ts";
import type { Chat, Loading, Outgoing, State } from "./types.ts";

export type Action =
  | { type: "event"; event: Event; deviceNow: number }
  | { type: "list"; loading: Loading }
  | { type: "listed"; conversations: readonly Conversation[]; next: string | undefined }
  | { type: "online"; users: readonly Presence[] }
  | { type: "open"; peer: UserId | null }
  | { type: "loading"; peer: UserId; loading: Loading }
  | { type: "page"; peer: UserId; messages: readonly Message[]; head: Seq }
  | { type: "seen"; peer: UserId; seq: Seq }
  | { type: "attentive"; attentive: boolean }
  | { type: "written"; item: Outgoing }
  | { type: "kept"; localId: string; message: PendingMessage }
  | { type: "failed"; item: Outgoing }
  | { type: "dropped"; peer: UserId; messageId: string }
  | { type: "skew"; skewMs: number };

export function initial(me: UserId, skewMs = 0): State {
  return {
    me, connection: { kind: "connecting", attempt: 0 }, skewMs, maxTextBytes: 8192,
    chats: new Map(), presence: new Map(), list: "idle", listNext: undefined, listLoaded: false,
    open: null, attentive: false, announce: { id: 0, text: "" },
  };
}

function withChat(state: State, peer: UserId, change: (chat: Chat) => Chat): State {
  const before = state.chats.get(peer) ?? chats.newChat(peer);
  const after = change(before);
  if (after === before && state.chats.has(peer)) return state;
  return { ...state, chats: new Map(state.chats).set(peer, after) };
}

export function reduce(state: State, action: Action): State {
  switch (action.type) {
    case "event":
      return onEvent(state, action.event, action.deviceNow);
    case "list":
      return { ...state, list: action.loading };
    case "listed":
      return onListed(state, action.conversations, action.next);
    case "online":
      return onOnline(state, action.users);
    case "open":
      return onOpen(state, action.peer);
    case "loading":
      return withChat(state, action.peer, (chat) => ({
        ...chat, loading: action.loading, opened: chat.opened || action.loading === "failed",
      }));
    case "page":
      return withChat(state, action.peer, (chat) => onPage(chat, action.messages, action.head, state.me));
    case "seen":
      return withChat(state, action.peer, (chat) =>
        chats.readUpTo(chat, { delivered: action.seq, read: action.seq }, state.me));
    case "attentive":
      return state.attentive === action.attentive ? state : { ...state, attentive: action.attentive };
    case "written":
      return withChat(state, action.item.peer, (chat) => ({ ...chat, outgoing: [...chat.outgoing, action.item] }));
    case "kept":
      return withChat(state, action.message.peer, (chat) => {
        const here = chat.outgoing.some((item) => item.messageId === action.localId);
        return here ? chats.without(chats.pending(chat, action.message), action.localId) : chat;
      });
    case "failed":
      return withChat(state, action.item.peer, (chat) => failed(chat, action.item));
    case "dropped":
      return withChat(state, action.peer, (chat) => chats.without(chat, action.messageId));
    case "skew":
      return { ...state, skewMs: action.skewMs };
  }
}

function onPage(chat: Chat, messages: readonly Message[], head: Seq, me: UserId): Chat {
  const known: Chat = head > chat.head ? { ...chat, head } : chat;
  return { ...chats.arrived({ ...known, opened: true }, messages, me), unreadFrom: chat.unreadFrom, loading: "idle" };
}

function failed(chat: Chat, item: Outgoing): Chat {
  const here = chat.outgoing.some((other) => other.messageId === item.messageId);
  return here ? chats.setStatus(chat, item.messageId, item.status) : { ...chat, outgoing: [...chat.outgoing, item] };
}

function onListed(state: State, conversations: readonly Conversation[], next: string | undefined): State {
  const all = new Map(state.chats);
  for (const conversation of conversations) {
    const chat = all.get(conversation.peer) ?? chats.newChat(conversation.peer);
    const known = chats.listed(chat, conversation, state.me);
    // A conversation opened before the list was here learns only now what is unread.
    const late = state.open === chat.peer && !chat.opened;
    all.set(chat.peer, late ? { ...known, unreadFrom: chats.firstUnread(known) } : known);
  }
  return { ...state, chats: all, list: "idle", listNext: next, listLoaded: true };
}

function onOnline(state: State, users: readonly Presence[]): State {
  const presence = new Map(state.presence);
  for (const user of users) presence.set(user.user, user);
  return { ...state, presence };
}

/** As far as is known, which without a connection is nothing. */
function nobodyOnline(state: State): State {
  return { ...state, presence: new Map([...state.presence].map(([user, p]) => [user, { ...p, online: false }])) };
}

function onOpen(state: State, peer: UserId | null): State {
  if (peer === null) return { ...state, open: null, attentive: false };
  const opened = withChat(state, peer, (chat) => ({ ...chat, unreadFrom: chats.firstUnread(chat) }));
  return { ...opened, open: peer, attentive: false };
}

function onEvent(state: State, event: Event, deviceNow: number): State {
  switch (event.type) {
    case "state": {
      const next = { ...state, connection: event.state };
      return event.state.kind === "connected" ? next : nobodyOnline(next);
    }
    case "connected":
      return { ...state, maxTextBytes: event.maxTextBytes };
    case "message":
      return onMessage(state, event.message);
    case "pending":
      return withChat(state, event.message.peer, (chat) => chats.pending(chat, event.message));
    case "stored": {
      const { messageId, seq, acceptedAt } = event;
      const next = withChat(state, event.peer, (chat) =>
        chats.placed(chats.setStatus(chat, messageId, { kind: "stored", seq, acceptedAt }), state.me));
      return event.duplicate ? next : { ...next, skewMs: acceptedAt.getTime() - deviceNow };
    }
    case "rejected": {
      const { messageId, peer, text, detail } = event;
      const item: Outgoing = { messageId, peer, text, writtenAt: new Date(deviceNow), status: { kind: "failed", detail } };
      return withChat(state, peer, (chat) => failed(chat, item));
    }
    case "abandoned":
      return withChat(state, event.peer, (chat) => chats.without(chat, event.messageId));
    case "deferred":
      return withChat(state, event.peer, (chat) =>
        chats.setStatus(chat, event.messageId, { kind: "waiting", reason: event.reason }));
    case "receipt":
      return withChat(state, event.peer, (chat) => chats.peerRead(chat, event));
    case "own-cursor":
      return withChat(state, event.peer, (chat) => chats.readUpTo(chat, event, state.me));
    case "presence":
      return onOnline(state, [event.presence]);
    case "presence-reset":
      return nobodyOnline(state);
    case "caught-up":
      return state;
    case "history-changed":
      return forget(state);
  }
}

function onMessage(state: State, message: Message): State {
  const next = withChat(state, message.peer, (chat) => {
    const after = chats.arrived(chat, [message], state.me);
    const watched = state.open === message.peer && state.attentive;
    return watched ? { ...after, unreadFrom: chat.unreadFrom } : after;
  });
  // What is caught up with is not read out: it may be hundreds of messages.
  if (state.connection.kind !== "connected") return next;
  if (message.sender === state.me || message.seq <= (state.chats.get(message.peer)?.head ?? 0n)) return next;
  return { ...next, announce: { id: state.announce.id + 1, text: announcement(message, state.open) } };
}

/** Another history: only what is not stored yet outlives it. */
function forget(state: State): State {
  const kept = [...state.chats].map(([peer, chat]): [UserId, Chat] => [
    peer,
    { ...chats.newChat(peer), outgoing: chat.outgoing.filter((item) => item.status.kind !== "stored") },
  ]);
  const wanted = kept.filter(([peer, chat]) => chat.outgoing.length > 0 || peer === state.open);
  return { ...state, chats: new Map(wanted), listLoaded: false, listNext: undefined };
}
