/**
 * What the client of Duologue is to an application: typed events, exactly-once sends,
 * and the calls that read.
 *
 * @packageDocumentation
 */

/** A user, as their token names them. */
export type UserId = string;
/** A message's id: chosen by the sending client, random (UUIDv7). */
export type MessageId = string;
/** A message's place in its conversation: 1, 2, 3 … without gaps. */
export type Seq = bigint;

/** How a client is made. */
export interface ClientOptions {
  /** Where the gateway is, as in `https://chat.example`. */
  url: string;
  /**
   * Gives a token whenever one is needed: for each connection, and again (`refused`
   * set) after the server has refused the last one.
   */
  token: (why: { refused: boolean }) => string | Promise<string>;
  /**
   * Whose state this is. It names the stored state, so that two users of one browser
   * do not meet.
   */
  user: UserId;
  /** The way in. By default WebSocket, and gRPC-Web where that cannot be opened. */
  transport?: "auto" | "websocket" | "grpc-web";
  /**
   * The `WebSocket` to use where the platform has none, as in Node 20: that of the
   * package `ws`.
   */
  webSocket?: unknown;
  /**
   * Where the outbox and the positions are kept: by default IndexedDB where there is
   * one that works, and memory elsewhere.
   */
  store?: ClientStore;
  /** Told to the server: at most 64 bytes each. */
  clientName?: string;
  clientVersion?: string;
}

/**
 * How a client is made; it resolves once the kept state is read, connected or not.
 * The package exports two of these: `openClient`, and `openShared`, by which all
 * tabs of one user are one device.
 */
export type Open = (options: ClientOptions) => Promise<Client>;

/** A chat client: one device of one user. */
export interface Client extends AsyncIterable<Event> {
  readonly user: UserId;
  readonly state: ConnectionState;
  /** Whether what is written survives a reload; if not, why. */
  readonly durability: { durable: true } | { durable: false; reason: string };

  /**
   * Puts a message in the outbox; resolves once it is kept there. From then on it is
   * sent until `stored` or `rejected`, with one id.
   */
  send(peer: UserId, text: string): Promise<PendingMessage>;
  /** Gives up a message that is not settled. It may have been stored nevertheless. */
  abandon(messageId: MessageId): Promise<void>;
  /** The outbox, oldest first. */
  pending(peer?: UserId): PendingMessage[];

  /** Everything up to `seq` has been read by the user. It reaches the server soon. */
  markRead(peer: UserId, seq: Seq): void;

  /** Pages of the user's conversations, the most recently active first. */
  conversations(query?: PageQuery): Promise<Page<Conversation>>;
  /** Messages of one conversation. */
  messages(peer: UserId, query?: MessagesQuery): Promise<Page<Message> & { head: Seq }>;
  /** Who is online and visible, in order of user id. */
  onlineUsers(query?: PageQuery): Promise<Page<Presence>>;
  /** One user's presence; an error where it may not be seen. */
  presence(user: UserId): Promise<Presence>;

  /** Calls `listener` for every event, in order. Returns what ends that. */
  on(listener: (event: Event) => void): () => void;
  /** Connects now: after `superseded` or `stopped`, or instead of waiting. */
  reconnect(): void;
  /** Ends the session; the outbox is kept. */
  close(): Promise<void>;
}

/** What the connection is doing. */
export type ConnectionState =
  | { kind: "connecting"; attempt: number }
  | { kind: "catching-up" }
  | { kind: "connected" }
  | { kind: "waiting"; retryAt: number; cause: string }
  | { kind: "offline" }
  | { kind: "superseded" }
  | { kind: "stopped"; reason: StopReason; detail: string }
  | { kind: "closed" };

/** Why a client does not go on by itself; `storage`: state cannot be written. */
export type StopReason = "unauthenticated" | "other-user" | "refused" | "storage";

/** Something that happened. Events come in order and none is dropped. */
export type Event =
  /** The connection's state changed. */
  | { type: "state"; state: ConnectionState }
  /** A session is open; what was missed follows, then `caught-up`. */
  | { type: "connected"; maxTextBytes: number; serverVersion: string; node: string }
  /** A message took its place. Those of a conversation come in order, without gaps. */
  | { type: "message"; message: Message }
  /** A message is in the outbox. */
  | { type: "pending"; message: PendingMessage }
  /** A message of this device is stored durably. */
  | { type: "stored"; messageId: MessageId; peer: UserId; seq: Seq; acceptedAt: Date; duplicate: boolean }
  /** A message of this device is refused for good; it has left the outbox. */
  | { type: "rejected"; messageId: MessageId; peer: UserId; text: string; reason: RejectedReason; field: string; detail: string }
  /** A message of this device was given up, in whichever tab; it has left the outbox. */
  | { type: "abandoned"; messageId: MessageId; peer: UserId }
  /** A message of this device is not settled yet; it is sent again. */
  | { type: "deferred"; messageId: MessageId; peer: UserId; reason: string }
  /** Everything up to here has reached the peer, or was read by them. */
  | { type: "receipt"; peer: UserId; delivered: Seq; read: Seq }
  /** The user's own cursor, moved by any of their devices. */
  | { type: "own-cursor"; peer: UserId; delivered: Seq; read: Seq }
  | { type: "presence"; presence: Presence }
  /** Who is online follows; everybody else is offline. */
  | { type: "presence-reset" }
  | { type: "caught-up" }
  /** The server has another history: what was shown may come again. */
  | { type: "history-changed" };

export type RejectedReason = "invalid" | "too-long" | "message-id-reused" | "other";

/** A message in its place. */
export interface Message {
  peer: UserId;
  seq: Seq;
  messageId: MessageId;
  sender: UserId;
  content: Content;
  acceptedAt: Date;
}

export type Content = { kind: "text"; text: string } | { kind: "unknown" };

/** A message that is not settled. */
export interface PendingMessage {
  messageId: MessageId;
  peer: UserId;
  text: string;
  /** When it was written, by this device's clock. */
  writtenAt: Date;
}

export interface Conversation {
  peer: UserId;
  head: Seq;
  lastMessage?: Message;
  unread: bigint;
  own: Cursor;
  peerCursor: Cursor;
}

export interface Cursor {
  delivered: Seq;
  read: Seq;
}

export interface Presence {
  user: UserId;
  online: boolean;
  lastSeen?: Date;
}

export interface PageQuery {
  pageSize?: number;
  pageToken?: string;
}

export interface MessagesQuery extends PageQuery {
  /** `backward` (the default): the newest first. */
  direction?: "forward" | "backward";
  /** Only messages with a higher, or a lower, place. */
  after?: Seq;
  before?: Seq;
}

export interface Page<T> {
  items: T[];
  /** Absent: this was the last page. */
  nextPageToken?: string;
}

/** A call that failed. */
export interface CallFailure extends Error {
  readonly name: "DuologueError";
  /** The gRPC status, as in `unavailable`. */
  readonly code: string;
  /** The stable reason of `google.rpc.ErrorInfo`. */
  readonly reason?: string;
  /** The field at fault. */
  readonly field?: string;
  /** Waiting this long helps. */
  readonly retryAfterMs?: number;
}

/**
 * Where a client keeps what must survive: small values under keys. `write` resolves
 * when all of it is durable, and is all or nothing.
 */
export interface ClientStore {
  readonly durable: boolean;
  read(): Promise<Map<string, unknown>>;
  write(changes: Map<string, unknown | undefined>): Promise<void>;
  close(): void;
}
