/**
 * What is said in words: days, times, and what the connection is doing.
 */
import type { ConnectionState, Message, Presence, StopReason, UserId } from "../api.ts";

const DAY_MS = 86_400_000;

/** A name or text inside a sentence: its direction stays its own. */
export function isolated(text: string): string {
  return `\u2068${text}\u2069`;
}

/** The day of a time, where the user is: rises by one a day. */
export function dayOf(time: Date): number {
  return Math.floor((time.getTime() - time.getTimezoneOffset() * 60_000) / DAY_MS);
}

/** A day as a separator says it. `now` is the server's time. */
export function dayName(time: Date, now: Date): string {
  const ago = dayOf(now) - dayOf(time);
  if (ago === 0) return "Today";
  if (ago === 1) return "Yesterday";
  if (ago > 1 && ago < 7) return time.toLocaleDateString("en-GB", { weekday: "long" });
  const year = time.getFullYear() === now.getFullYear() ? undefined : "numeric";
  return time.toLocaleDateString("en-GB", { weekday: "long", day: "numeric", month: "long", year });
}

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });

export function timeName(time: Date): string {
  return clock.format(time);
}

/** When, in a list: as short as it can be. */
export function shortTime(time: Date, now: Date): string {
  const ago = dayOf(now) - dayOf(time);
  if (ago <= 0) return timeName(time);
  if (ago === 1) return "Yesterday";
  if (ago < 7) return time.toLocaleDateString("en-GB", { weekday: "short" });
  const year = time.getFullYear() === now.getFullYear() ? undefined : "2-digit";
  return time.toLocaleDateString("en-GB", { day: "numeric", month: "short", year });
}

export function presenceName(presence: Presence | undefined, now: Date): string {
  if (presence?.online) return "Online";
  if (presence?.lastSeen === undefined) return "";
  const when = shortTime(presence.lastSeen, now);
  return `Last seen ${when === "Yesterday" ? "yesterday" : when}`;
}

/** What of a message fits a line. */
export function preview(message: Message): string {
  if (message.content.kind !== "text") return "A message this page cannot show";
  return message.content.text.slice(0, 200).replace(/\s+/g, " ");
}

export function announcement(message: Message, open: UserId | null): string {
  const text = isolated(preview(message));
  const from = isolated(message.sender);
  return message.peer === open ? `${from}: ${text}` : `New message from ${from}: ${text}`;
}

/** What the line about the connection says, and what can be done. */
export interface Notice {
  tone: "calm" | "warn" | "stop";
  text: string;
  /** When the client tries again, in milliseconds since 1970 of this device. */
  retryAt?: number;
  action?: { label: string; what: "reconnect" | "sign-in" };
}

export function noticeOf(state: ConnectionState): Notice | null {
  switch (state.kind) {
    case "connected":
      return null;
    case "connecting":
      return { tone: "calm", text: state.attempt > 1 ? "Connecting again…" : "Connecting…" };
    case "catching-up":
      return { tone: "calm", text: "Catching up…" };
    case "waiting":
      return {
        tone: "warn", text: "No connection. What you write is kept and sent later.", retryAt: state.retryAt,
        action: { label: "Try now", what: "reconnect" },
      };
    case "offline":
      return { tone: "warn", text: "You are offline. What you write is kept and sent later." };
    case "superseded":
      return {
        tone: "stop", text: "This chat went on in another place.",
        action: { label: "Use here", what: "reconnect" },
      };
    case "stopped":
      return stopped(state.reason, state.detail);
    case "closed":
      return { tone: "stop", text: "You are signed out.", action: { label: "Sign in", what: "sign-in" } };
  }
}

function stopped(reason: StopReason, detail: string): Notice {
  const signIn = { label: "Sign in again", what: "sign-in" } as const;
  switch (reason) {
    case "unauthenticated":
      return { tone: "stop", text: "Your sign-in is no longer valid.", action: signIn };
    case "other-user":
      return { tone: "stop", text: "The sign-in belongs to somebody else.", action: signIn };
    case "storage":
      return {
        tone: "stop", text: `This browser can no longer keep what you write: ${detail}`,
        action: { label: "Try again", what: "reconnect" },
      };
    case "refused":
      return {
        tone: "stop", text: `The server refused the connection: ${detail}`,
        action: { label: "Try again", what: "reconnect" },
      };
  }
}
