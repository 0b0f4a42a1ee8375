/** The owner's part: a client of its own, shared with the other tabs. */

import type { ConnectionState, Event, MessageId, Presence, Seq, UserId } from "../api.ts";
import type { DirectClient } from "../client.ts";
import { CLOSED, toFailure } from "../errors.ts";
import type { Letter } from "../session.ts";
import { TAKEN_OVER } from "../store/indexedDb.ts";
import type { Ask, Failure, Told } from "./messages.ts";

export class Owner {
  readonly client: DirectClient;
  readonly #tell: (told: Told) => void;
  readonly #show: (event: Event) => Promise<void>;
  readonly #online = new Map<UserId, Presence>();
  /** How far events went, by conversation. */
  readonly #positions: Map<UserId, Seq>;
  /** Messages that are being kept. */
  readonly #keeping = new Map<MessageId, Promise<unknown>>();
  #connected: Event | undefined;

  constructor(client: DirectClient, tell: (told: Told) => void, show: (event: Event) => Promise<void>) {
    this.client = client;
    this.#positions = client.positions();
    this.#tell = tell;
    this.#show = show;
  }

  /** Hands every event to the other tabs and to this one's application, in turn. */
  async feed(): Promise<void> {
    for await (const event of this.client) {
      this.#note(event);
      await this.#give(event);
    }
  }

  /** The server tells only other devices of it; other tabs must know, too. */
  markRead(peer: UserId, seq: Seq): void {
    if (this.client.markRead(peer, seq)) void this.#give({ type: "own-cursor", peer, delivered: seq, read: seq });
  }

  /** Keeps a message; resolves with where an earlier copy may be. */
  async keep(letter: Letter): Promise<Seq> {
    await this.#keeping.get(letter.id);
    const known = this.client.find(letter.id);
    if (known !== undefined) return known.afterSeq;
    const keeping = this.client.deliver(letter);
    this.#keeping.set(
      letter.id,
      keeping.catch(() => undefined),
    );
    const afterSeq = this.client.find(letter.id)?.afterSeq ?? 0n;
    try {
      await keeping;
      return afterSeq;
    } finally {
      this.#keeping.delete(letter.id);
    }
  }

  /** Another tab asks. */
  answer(to: string, ask: Ask): void {
    switch (ask.kind) {
      case "join":
        return this.#tell({ kind: "snapshot", to, snapshot: this.#snapshot() });
      case "probe":
        return this.#tell({ kind: "alive" });
      case "read":
        return this.markRead(ask.peer, ask.seq);
      case "reconnect":
        return this.client.reconnect();
      case "send":
        return this.#reply(to, ask.request, async () => {
          const afterSeq = await this.keep(ask.letter);
          return { kind: "kept", to, request: ask.request, afterSeq };
        });
      case "abandon":
        return this.#reply(to, ask.request, async () => {
          await this.client.abandon(ask.id);
          return { kind: "done", to, request: ask.request };
        });
    }
  }

  #give(event: Event): Promise<void> {
    if (!isClosing(event)) this.#tell({ kind: "event", event });
    return this.#show(event);
  }

  #reply(to: string, request: number, make: () => Promise<Told>): void {
    make().then(
      (told) => this.#tell(told),
      (error: unknown) => {
        const { code, message, reason, field, retryAfterMs } = toFailure(error);
        // This tab is the owner no longer: the next one is asked.
        if (reason === CLOSED || reason === TAKEN_OVER) return;
        const failure: Failure = { code, message, reason, field, retryAfterMs };
        this.#tell({ kind: "failed", to, request, failure });
      },
    );
  }

  #snapshot() {
    const { state, durability } = this.client;
    const isOpen = state.kind === "connected" || state.kind === "catching-up";
    return {
      state,
      durability,
      pending: this.client.pending(),
      connected: isOpen ? this.#connected : undefined,
      positions: this.#positions,
      online: [...this.#online.values()],
    };
  }

  #note(event: Event): void {
    if (event.type === "connected") this.#connected = event;
    if (event.type === "message") this.#positions.set(event.message.peer, event.message.seq);
    if (event.type === "history-changed") this.#positions.clear();
    // Without a connection nothing is known; what comes with one comes behind this.
    if (event.type === "presence-reset" || (event.type === "state" && event.state.kind !== "connected")) this.#online.clear();
    if (event.type !== "presence") return;
    if (event.presence.online) this.#online.set(event.presence.user, event.presence);
    else this.#online.delete(event.presence.user);
  }
}

/** That this tab's own part has ended is no news for the others. */
function isClosing(event: Event): boolean {
  const kinds: ConnectionState["kind"][] = ["closed", "superseded"];
  return event.type === "state" && kinds.includes(event.state.kind);
}
