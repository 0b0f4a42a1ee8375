/**
 * Between the client and what is shown: events and answers become state, and what the
 * user does becomes calls. It decides nothing about how state changes (`model/`), and
 * touches no element.
 */
import type { Client, Event, Message, MessagesQuery, Page, Seq, UserId } from "./api.ts";
import { kept } from "./kept.ts";
import { firstUnread, isLocal } from "./model/chat.ts";
import { initial, reduce, type Action } from "./model/reduce.ts";
import { holds } from "./model/timeline.ts";
import type { Outgoing, State } from "./model/types.ts";

const PAGE = 60;
/** How many read messages are fetched above the first unread one. */
const BEFORE_UNREAD = 20n;
const ONLINE_RETRY_MS = 5_000;

export class Controller {
  state: State;
  private readonly listeners = new Set<() => void>();
  private readonly reading = new Set<UserId>();
  private readonly stopListening: () => void;
  private listing: Promise<void> | null = null;
  private locals = 0;
  private askAgain: ReturnType<typeof setTimeout> | undefined;
  /** How often it was asked who is online, and of whom changes came since the last time. */
  private asked = 0;
  private readonly changed = new Set<UserId>();
  private ended = false;

  constructor(readonly client: Client, skewMs: number) {
    this.state = { ...initial(client.user, skewMs), connection: client.state };
    this.stopListening = client.on((event) => this.onEvent(event));
    for (const message of client.pending()) this.dispatch({ type: "event", event: { type: "pending", message }, deviceNow: Date.now() });
    for (const item of this.savedFailures()) this.dispatch({ type: "failed", item });
    if (client.state.kind === "connected") this.refresh();
  }

  onChange(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** The server's time, as far as it is known. */
  now(): Date {
    return new Date(Date.now() + this.state.skewMs);
  }

  dispatch(action: Action): void {
    const next = reduce(this.state, action);
    if (next === this.state || this.ended) return;
    this.state = next;
    for (const listener of this.listeners) listener();
  }

  async end(): Promise<void> {
    this.ended = true;
    this.stopListening();
    await this.client.close();
  }

  open(peer: UserId | null): void {
    if (peer === this.state.open) return;
    this.dispatch({ type: "open", peer });
    if (peer === null) return;
    void this.readFirst(peer);
    void this.client.presence(peer).then(
      (presence) => this.dispatch({ type: "online", users: [presence] }),
      () => undefined, // Not visible, or not known now: nothing is shown of it.
    );
  }

  /** Puts a message in the outbox; it is shown before it is there. */
  async send(peer: UserId, text: string): Promise<void> {
    this.locals += 1;
    const item: Outgoing = { messageId: `local:${this.locals}`, peer, text, writtenAt: new Date(), status: { kind: "sending" } };
    this.dispatch({ type: "written", item });
    try {
      const message = await this.client.send(peer, text);
      this.dispatch({ type: "kept", localId: item.messageId, message });
    } catch (error) {
      this.dispatch({ type: "failed", item: { ...item, status: { kind: "failed", detail: messageOf(error) } } });
      this.saveFailures();
    }
  }

  retry(item: Outgoing): void {
    this.discard(item);
    void this.send(item.peer, item.text);
  }

  /** Takes a message off the screen, and out of the outbox if it is still there. */
  discard(item: Outgoing): void {
    this.dispatch({ type: "dropped", peer: item.peer, messageId: item.messageId });
    this.saveFailures();
    if (item.status.kind === "failed") return;
    void this.client.abandon(item.messageId).catch(() => this.dispatch({ type: "written", item }));
  }

  seen(peer: UserId, seq: Seq): void {
    const chat = this.state.chats.get(peer);
    if (chat === undefined || seq <= chat.own.read || seq > chat.head) return;
    this.dispatch({ type: "seen", peer, seq });
    this.client.markRead(peer, seq);
  }

  /** The messages before the first one that is here. */
  readOlder(peer: UserId): Promise<void> {
    const first = this.state.chats.get(peer)?.messages[0];
    if (first === undefined) return this.readFirst(peer);
    return first.seq > 1n ? this.read(peer, { before: first.seq }) : Promise.resolve();
  }

  /** A page of what is missing between two messages, beside the one or the other. */
  readGap(peer: UserId, after: Seq, before: Seq, from: "older" | "newer"): Promise<void> {
    return this.read(peer, { after, before, direction: from === "older" ? "forward" : "backward" });
  }

  readNewest(peer: UserId): Promise<void> {
    return this.read(peer, {});
  }

  async readAround(peer: UserId, seq: Seq): Promise<void> {
    if (holds(this.state.chats.get(peer)?.messages ?? [], seq)) return;
    const after = seq > BEFORE_UNREAD ? seq - BEFORE_UNREAD : 0n;
    await this.read(peer, { after, direction: "forward" });
  }

  async moreConversations(): Promise<void> {
    if (this.state.list !== "idle" || this.state.listNext === undefined) return;
    await this.readList(this.state.listNext);
  }

  /** Who is online now. */
  async readOnline(): Promise<void> {
    const asked = (this.asked += 1);
    this.changed.clear();
    try {
      let pageToken: string | undefined;
      for (let pages = 0; pages < 5; pages += 1) {
        const page = await this.client.onlineUsers(pageToken === undefined ? {} : { pageToken });
        // It was asked for again: that answer is newer.
        if (asked !== this.asked) return;
        this.dispatch({ type: "online", users: page.items.filter(({ user }) => !this.changed.has(user)) });
        pageToken = page.nextPageToken;
        if (pageToken === undefined) return;
      }
    } catch {
      // Presence cannot be known now. What is shown stays; events go on, but of who is
      // online already there is none.
      clearTimeout(this.askAgain);
      const { connection } = this.state;
      if (asked === this.asked && !this.ended && connection.kind === "connected") this.askAgain = setTimeout(() => void this.readOnline(), ONLINE_RETRY_MS);
    }
  }

  /** Reads the list again, and what could not be read of the open conversation. */
  refresh(): void {
    void this.readList(undefined);
    void this.readOnline();
    const { open } = this.state;
    if (open !== null && this.state.chats.get(open)?.loading !== "idle") void this.readFirst(open);
  }

  private onEvent(event: Event): void {
    this.dispatch({ type: "event", event, deviceNow: Date.now() });
    if (event.type === "presence") this.changed.add(event.presence.user);
    if (event.type === "caught-up") this.refresh();
    // Said to a tab that follows anew, without a catch-up of its own.
    if (event.type === "presence-reset" && this.state.connection.kind === "connected") void this.readOnline();
    if (event.type === "rejected") this.saveFailures();
    if (event.type === "history-changed" && this.state.open !== null) void this.readFirst(this.state.open);
  }

  private async readFirst(peer: UserId): Promise<void> {
    // Where to begin depends on what is unread, which the list knows.
    let chat = this.state.chats.get(peer);
    const isKnown = chat === undefined || chat.unread === 0 || chat.own.delivered > 0n;
    if (!this.state.listLoaded || !isKnown) await this.readList(undefined);
    chat = this.state.chats.get(peer);
    const unread = chat === undefined ? null : firstUnread(chat);
    if (chat !== undefined && unread !== null && chat.head - unread > BigInt(PAGE)) await this.readAround(peer, unread);
    else await this.read(peer, {});
    if (this.state.chats.get(peer)?.opened !== true) this.dispatch({ type: "loading", peer, loading: "idle" });
  }

  private async read(peer: UserId, query: MessagesQuery): Promise<void> {
    if (this.reading.has(peer)) return;
    this.reading.add(peer);
    this.dispatch({ type: "loading", peer, loading: "busy" });
    try {
      const page: Page<Message> & { head: Seq } = await this.client.messages(peer, { pageSize: PAGE, ...query });
      this.dispatch({ type: "page", peer, messages: page.items, head: page.head });
    } catch {
      this.dispatch({ type: "loading", peer, loading: "failed" });
    } finally {
      this.reading.delete(peer);
    }
  }

  private readList(pageToken: string | undefined): Promise<void> {
    this.listing ??= this.readListPage(pageToken).finally(() => {
      this.listing = null;
    });
    return this.listing;
  }

  private async readListPage(pageToken: string | undefined): Promise<void> {
    this.dispatch({ type: "list", loading: "busy" });
    try {
      const page = await this.client.conversations(pageToken === undefined ? {} : { pageToken });
      this.dispatch({ type: "listed", conversations: page.items, next: page.nextPageToken });
    } catch {
      this.dispatch({ type: "list", loading: "failed" });
    }
  }

  draft(peer: UserId): string {
    return kept("localStorage").get(this.draftKey(peer)) ?? "";
  }

  setDraft(peer: UserId, text: string): void {
    if (text === "") kept("localStorage").remove(this.draftKey(peer));
    else kept("localStorage").set(this.draftKey(peer), text);
  }

  private draftKey(peer: UserId): string {
    return `duologue.draft/${this.state.me}/${peer}`;
  }

  /** Refused messages have left the outbox; their text must not be lost by a reload. */
  private saveFailures(): void {
    const failures = [...this.state.chats.values()]
      .flatMap((chat) => chat.outgoing)
      .filter((item) => item.status.kind === "failed");
    const key = `duologue.failed/${this.state.me}`;
    if (failures.length === 0) kept("localStorage").remove(key);
    else kept("localStorage").set(key, JSON.stringify(failures.slice(-50)));
  }

  private savedFailures(): Outgoing[] {
    try {
      const value: unknown = JSON.parse(kept("localStorage").get(`duologue.failed/${this.state.me}`) ?? "[]");
      return Array.isArray(value) ? value.flatMap(failureFrom) : [];
    } catch {
      return [];
    }
  }
}

function failureFrom(value: unknown): Outgoing[] {
  if (typeof value !== "object" || value === null) return [];
  const { messageId, peer, text, status, writtenAt } = value as Record<string, unknown>;
  if (typeof messageId !== "string" || typeof peer !== "string" || typeof text !== "string") return [];
  const detail = typeof status === "object" && status !== null && "detail" in status ? String(status.detail) : "";
  // An id of its own: those that the page made up are counted from the start.
  const id = isLocal(messageId) ? `kept:${messageId}:${text.length}` : messageId;
  const written = new Date(String(writtenAt));
  return [{ messageId: id, peer, text, writtenAt: Number.isNaN(written.getTime()) ? new Date() : written, status: { kind: "failed", detail } }];
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : "it could not be kept";
}
