/**
 * The lists beside a conversation: conversations by recency, people with those online
 * first, and what a search finds.
 */
import type { Presence, UserId } from "../api.ts";
import type { Chat, State } from "./types.ts";

function activity(chat: Chat, skewMs: number): number {
  const stored = chat.last?.acceptedAt.getTime() ?? 0;
  const written = chat.outgoing.map((item) => item.writtenAt.getTime() + skewMs);
  return Math.max(stored, ...written);
}

/** The most recently active first. Those that hold nothing are none. */
export function conversationsOf(state: State): Chat[] {
  return [...state.chats.values()]
    .filter((chat) => chat.head > 0n || chat.outgoing.length > 0)
    .map((chat) => ({ chat, at: activity(chat, state.skewMs) }))
    .sort((a, b) => b.at - a.at || compare(a.chat.peer, b.chat.peer))
    .map(({ chat }) => chat);
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** Everybody known, the online ones first. */
export function peopleOf(state: State): Presence[] {
  const all = new Map<UserId, Presence>();
  for (const peer of state.chats.keys()) all.set(peer, { user: peer, online: false });
  for (const [user, presence] of state.presence) all.set(user, presence);
  all.delete(state.me);
  return [...all.values()].sort(
    (a, b) => Number(b.online) - Number(a.online) || compare(a.user.toLowerCase(), b.user.toLowerCase()) || compare(a.user, b.user),
  );
}

export function onlineCount(state: State): number {
  return [...state.presence.values()].filter((p) => p.online && p.user !== state.me).length;
}

export function unreadTotal(state: State): number {
  return [...state.chats.values()].reduce((sum, chat) => sum + chat.unread, 0);
}

export interface Found {
  people: Presence[];
  /** A name nobody here has, and that may be written to. */
  fresh: UserId | null;
  /** Why what is typed is no name. */
  problem: string | null;
}

/** Names that begin with what is typed come before names that hold it. */
export function find(state: State, typed: string): Found {
  const query = typed.trim();
  const lower = query.toLowerCase();
  const everybody = [...peopleOf(state), { user: state.me, online: true }];
  const rank = (name: string): number => (name === query ? 0 : name.toLowerCase().startsWith(lower) ? 1 : 2);
  const people = everybody
    .filter((p) => p.user.toLowerCase().includes(lower))
    .sort((a, b) => rank(a.user) - rank(b.user));
  const exact = everybody.some((p) => p.user === query);
  const problem = query === "" || exact ? null : nameProblem(query);
  return { people, fresh: exact || problem !== null || query === "" ? null : query, problem };
}

/** What is wrong with a name, by the contract's rule for user ids. */
export function nameProblem(name: string): string | null {
  if (name === "") return "Enter a name.";
  if (name.length > 64) return "A name has at most 64 characters.";
  if (!/^[A-Za-z0-9._\-@+]+$/.test(name)) return "A name is made of letters A–Z, digits and . _ - @ +";
  return null;
}

/** The two letters that stand for a name. */
export function initials(name: string): string {
  const parts = name.split(/[._\-@+\s]+/).filter((part) => part !== "");
  const letter = (part: string | undefined): string => [...(part ?? "")].find((c) => /[\p{L}\p{N}]/u.test(c)) ?? "";
  return (letter(parts[0]) + letter(parts[1])).toUpperCase();
}

/** One of `count` colours, the same for the same name everywhere. */
export function hueOf(name: string, count: number): number {
  let hash = 0;
  for (let i = 0; i < name.length; i += 1) hash = (hash * 31 + name.charCodeAt(i)) >>> 0;
  return hash % count;
}

const encoder = new TextEncoder();

export function bytesOf(text: string): number {
  return encoder.encode(text).length;
}
