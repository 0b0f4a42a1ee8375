/** A client without a server: what a test says happens, happens. */
import type {
  Client, ConnectionState, Conversation, Event, Message, MessagesQuery, Page, PageQuery,
  PendingMessage, Presence, Seq, UserId,
} from "../api.ts";
import type { Seed } from "./seed.ts";

export class FakeClient implements Client {
  state: ConnectionState = { kind: "connecting", attempt: 1 };
  durability: Client["durability"] = { durable: true };
  /** How long a call takes, and an acknowledgement. */
  delayMs = 15;
  /** So many calls fail next. */
  failCalls = 0;
  /** The next sends are refused for this reason. */
  rejectSends: string | null = null;
  /** The next sends are put off. */
  deferSends = false;
  /** Conversations in a page of the list. */
  listPage = 50;
  /** Calls of `abandon`, as they came. */
  readonly abandoned: string[] = [];
  /** Calls of `markRead`, as they came. */
  readonly reads: { peer: UserId; seq: Seq }[] = [];
  private readonly listeners = new Set<(event: Event) => void>();
  private readonly outbox: PendingMessage[] = [];
  private connecting: ReturnType<typeof setTimeout> | undefined;
  private held = Promise.resolve();
  private counter = 0;

  constructor(readonly user: UserId, readonly data: Seed) {}

  connectSoon(): void {
    this.connecting = setTimeout(() => this.connect(), 30);
  }

  connect(): void {
    this.setState({ kind: "connected" });
    this.emit({ type: "connected", maxTextBytes: 8192, serverVersion: "0", node: "fake" });
    for (const presence of this.data.presence.values()) this.emit({ type: "presence", presence });
    this.emit({ type: "caught-up" });
    for (const message of [...this.outbox]) this.settleSoon(message);
  }

  /** It stays until it is set again: a connection that was about to come does not. */
  setState(state: ConnectionState): void {
    clearTimeout(this.connecting);
    this.state = state;
    this.emit({ type: "state", state });
  }

  emit(event: Event): void {
    for (const listener of this.listeners) listener(event);
  }

  on(listener: (event: Event) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  async *[Symbol.asyncIterator](): AsyncIterator<Event> {
    const queue: Event[] = [];
    let wake: () => void = () => undefined;
    const stop = this.on((event) => {
      queue.push(event);
      wake();
    });
    try {
      for (;;) {
        const event = queue.shift();
        if (event !== undefined) yield event;
        else await new Promise<void>((resolve) => (wake = resolve));
      }
    } finally {
      stop();
    }
  }

  async send(peer: UserId, text: string): Promise<PendingMessage> {
    await this.answer();
    this.counter += 1;
    const message: PendingMessage = { messageId: `own-${this.counter}-${text.length}`, peer, text, writtenAt: new Date() };
    this.outbox.push(message);
    this.emit({ type: "pending", message });
    if (this.state.kind === "connected") this.settleSoon(message);
    return message;
  }

  private settleSoon(message: PendingMessage): void {
    setTimeout(() => this.settle(message), this.delayMs);
  }

  private settle(message: PendingMessage): void {
    const { messageId, peer, text } = message;
    const at = this.outbox.indexOf(message);
    if (at < 0 || this.state.kind !== "connected") return;
    if (this.deferSends) {
      this.emit({ type: "deferred", messageId, peer, reason: "rate limited" });
      return;
    }
    this.outbox.splice(at, 1);
    if (this.rejectSends !== null) {
      this.emit({ type: "rejected", messageId, peer, text, reason: "other", field: "", detail: this.rejectSends });
      return;
    }
    const stored = this.data.append(peer, this.user, text, messageId, new Date(Date.now() + this.data.skewMs));
    this.emit({ type: "stored", messageId, peer, seq: stored.seq, acceptedAt: stored.acceptedAt, duplicate: false });
    this.emit({ type: "message", message: stored });
  }

  async abandon(messageId: string): Promise<void> {
    this.abandoned.push(messageId);
    const at = this.outbox.findIndex((message) => message.messageId === messageId);
    const [message] = at < 0 ? [] : this.outbox.splice(at, 1);
    if (message !== undefined) this.emit({ type: "abandoned", messageId, peer: message.peer });
  }

  pending(peer?: UserId): PendingMessage[] {
    return this.outbox.filter((message) => peer === undefined || message.peer === peer);
  }

  /** The peer writes something. */
  receive(peer: UserId, text: string): void {
    const message = this.data.append(peer, peer, text, `live-${this.data.head(peer) + 1n}`, new Date(Date.now() + this.data.skewMs));
    this.emit({ type: "message", message });
  }

  /** The peer comes or goes. */
  appear(presence: Presence): void {
    this.data.presence.set(presence.user, presence);
    this.emit({ type: "presence", presence });
  }

  /** The peer has read everything, or it has reached them. */
  receipt(peer: UserId, delivered: Seq, read: Seq): void {
    this.data.conversation(peer).peerCursor = { delivered, read };
    this.emit({ type: "receipt", peer, delivered, read });
  }

  markRead(peer: UserId, seq: Seq): void {
    this.reads.push({ peer, seq });
    const chat = this.data.conversation(peer);
    chat.own = { delivered: seq, read: seq };
    this.emit({ type: "own-cursor", peer, delivered: seq, read: seq });
  }

  async conversations(query: PageQuery = {}): Promise<Page<Conversation>> {
    await this.answer();
    return paged(this.data.conversations(this.user), query, this.listPage);
  }

  async messages(peer: UserId, query: MessagesQuery = {}): Promise<Page<Message> & { head: Seq }> {
    await this.answer();
    const forward = query.direction === "forward";
    const all = this.data.messages(peer).filter(
      (m) => (query.after === undefined || m.seq > query.after) && (query.before === undefined || m.seq < query.before),
    );
    return { ...paged(forward ? all : all.reverse(), query, 50), head: this.data.head(peer) };
  }

  async onlineUsers(query: PageQuery = {}): Promise<Page<Presence>> {
    await this.answer();
    return paged([...this.data.presence.values()].filter((p) => p.online), query, 50);
  }

  async presence(user: UserId): Promise<Presence> {
    await this.answer();
    const presence = this.data.presence.get(user);
    if (presence === undefined) throw new Error("permission denied");
    return presence;
  }

  reconnect(): void {
    this.setState({ kind: "connecting", attempt: 1 });
    this.connectSoon();
  }

  async close(): Promise<void> {
    this.setState({ kind: "closed" });
  }

  /** Calls are answered only when what is returned is called. */
  hold(): () => void {
    let release: () => void = () => undefined;
    this.held = new Promise((resolve) => (release = resolve));
    return release;
  }

  private async answer(): Promise<void> {
    await new Promise((resolve) => setTimeout(resolve, this.delayMs));
    await this.held;
    if (this.failCalls <= 0) return;
    this.failCalls -= 1;
    throw new Error("unavailable: nothing can be read now");
  }
}

function paged<T>(all: T[], query: PageQuery, usual: number): Page<T> {
  const from = Number(query.pageToken ?? "0");
  const to = from + (query.pageSize ?? usual);
  const items = all.slice(from, to);
  return to < all.length ? { items, nextPageToken: String(to) } : { items };
}
