/**
 * What the page shows, as plain values. Nothing here knows of the DOM or of I/O.
 */
import type {
  ConnectionState, Cursor, Message, MessageId, Presence, Seq, UserId,
} from "../api.ts";

/** A message of this user that has not taken its place. */
export interface Outgoing {
  /** The message's id; `local:…` until the outbox has given it one. */
  messageId: MessageId;
  peer: UserId;
  text: string;
  /** By this device's clock. */
  writtenAt: Date;
  status:
    | { kind: "sending" }
    /** The server has put it off; the client sends it again. */
    | { kind: "waiting"; reason: string }
    /** Stored, but what lies before it is not here yet. */
    | { kind: "stored"; seq: Seq; acceptedAt: Date }
    | { kind: "failed"; detail: string };
}

/** How reading of a conversation goes. */
export type Loading = "idle" | "busy" | "failed";

/** One conversation: its line in the list, and what is here of its messages. */
export interface Chat {
  peer: UserId;
  head: Seq;
  last: Message | null;
  unread: number;
  own: Cursor;
  peerCursor: Cursor;
  /** By rising seq, each once; where two neighbours are not consecutive is a gap. */
  messages: readonly Message[];
  outgoing: readonly Outgoing[];
  /** The first message that was unread when the conversation was opened. */
  unreadFrom: Seq | null;
  /** Whether the first page after opening is here (or has failed). */
  opened: boolean;
  loading: Loading;
}

export interface State {
  me: UserId;
  connection: ConnectionState;
  /** The server's clock less this device's, as far as is known. */
  skewMs: number;
  maxTextBytes: number;
  chats: ReadonlyMap<UserId, Chat>;
  presence: ReadonlyMap<UserId, Presence>;
  /** The list of conversations: read, being read, or not readable. */
  list: Loading;
  /** Asks for the rest of the list. */
  listNext: string | undefined;
  listLoaded: boolean;
  open: UserId | null;
  /** The user looks at the newest message of the open conversation. */
  attentive: boolean;
  /** What a screen reader is to say next; `id` tells two equal ones apart. */
  announce: { id: number; text: string };
}

/** What is shown of an own message. */
export type Mark = "sending" | "waiting" | "stored" | "delivered" | "read" | "failed";
