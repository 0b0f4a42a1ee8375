/** The client of one page or program: a session of its own. */

import type { Client, ClientOptions, ConnectionState, Event, MessageId, PendingMessage, UserId } from "./api.ts";
import { Calls } from "./calls.ts";
import { Driver } from "./driver.ts";
import { type Environment, systemEnvironment } from "./environment.ts";
import { DuologueError } from "./errors.ts";
import { deviceId, isUserId, messageId } from "./ids.ts";
import { Saver } from "./saver.ts";
import { Session } from "./session.ts";
import { fromRecords, newDevice, type Saved } from "./session/records.ts";
import { openStore } from "./store/open.ts";
import { Tokens } from "./tokens.ts";
import { chatClient } from "./transport/grpcWeb.ts";
import { chooseTransport, type TransportParts } from "./transport/choose.ts";

/** What tests put in the place of the world's. */
export interface ClientParts extends TransportParts {
  readonly environment?: Environment;
}

/**
 * Opens the client of one device: what it kept is read, then it connects, and stays
 * connected until it is closed.
 */
export async function openClient(options: ClientOptions): Promise<Client> {
  return openDirect(options);
}

export async function openDirect(options: ClientOptions, parts: ClientParts = {}): Promise<DirectClient> {
  if (!isUserId(options.user)) {
    throw new DuologueError("invalid_argument", "user: 1 to 64 of letters, digits and . _ - @ +", { field: "user" });
  }
  const environment = parts.environment ?? systemEnvironment();
  const { store, durability } = await openStore(options.user, options.store);
  try {
    const records = await store.read();
    const saved = readSaved(records) ?? newDevice(deviceId(environment.bytes(16)));
    const session = new Session(saved, sessionOptions(options));
    const tokens = new Tokens(options.token, environment);
    const client = parts.chat ?? chatClient(options.url);
    const calls = new Calls(client, tokens);
    const driver = new Driver({
      session,
      saver: new Saver(store, records),
      transport: chooseTransport(options, client, environment, parts),
      tokens,
      listMessages: (request) => calls.call((chat, callOptions) => chat.listMessages(request, callOptions)),
      environment,
    });
    return new DirectClient(options.user, { session, driver, calls, environment, durability, store });
  } catch (error) {
    store.close();
    throw error;
  }
}

function readSaved(records: ReadonlyMap<string, unknown>): Saved | undefined {
  try {
    return fromRecords(records);
  } catch (error) {
    const why = error instanceof Error ? error.message : "it is malformed";
    throw new DuologueError("data_loss", `the stored state cannot be read: ${why}`, { reason: "STATE_UNREADABLE" });
  }
}

function sessionOptions({ user, clientName, clientVersion }: ClientOptions) {
  return { user, clientName: clientName ?? "duologue-web", clientVersion: clientVersion ?? "" };
}

interface Inside {
  readonly session: Session;
  readonly driver: Driver;
  readonly calls: Calls;
  readonly environment: Environment;
  readonly durability: Client["durability"];
  readonly store: { close(): void };
}

export class DirectClient implements Client {
  readonly user: UserId;
  readonly durability: Client["durability"];
  readonly conversations: Client["conversations"];
  readonly messages: Client["messages"];
  readonly onlineUsers: Client["onlineUsers"];
  readonly presence: Client["presence"];
  readonly #inside: Inside;

  constructor(user: UserId, inside: Inside) {
    const { calls } = inside;
    this.user = user;
    this.durability = inside.durability;
    this.#inside = inside;
    this.conversations = (query) => calls.conversations(query);
    this.messages = (peer, query) => calls.messages(peer, query);
    this.onlineUsers = (query) => calls.onlineUsers(query);
    this.presence = (other) => calls.presence(other);
  }

  get state(): ConnectionState {
    return this.#inside.driver.isClosed ? { kind: "closed" } : this.#inside.session.state;
  }

  async send(peer: UserId, text: string): Promise<PendingMessage> {
    const { environment } = this.#inside;
    const writtenAt = environment.wall();
    const id = messageId(writtenAt, environment.bytes(16));
    return this.deliver({ id, peer, text, writtenAt });
  }

  /** As `send`, under an id that was chosen elsewhere. */
  async deliver(letter: Parameters<Driver["send"]>[0]): Promise<PendingMessage> {
    await this.#inside.driver.send(letter);
    const { id, peer, text, writtenAt } = letter;
    return { messageId: id, peer, text, writtenAt: new Date(writtenAt) };
  }

  /** What is in the outbox under this id. */
  find(id: MessageId): ReturnType<Session["find"]> {
    return this.#inside.session.find(id);
  }

  /** Somebody else has opened the store since: this one cannot go on. */
  get isTakenOver(): boolean {
    return this.#inside.driver.isTakenOver;
  }

  /** How far events were taken, by conversation. */
  positions(): ReturnType<Session["positions"]> {
    return this.#inside.session.positions();
  }

  abandon(id: MessageId): Promise<void> {
    return this.#inside.driver.abandon(id);
  }

  pending(peer?: UserId): PendingMessage[] {
    const all = this.#inside.session.pending();
    return peer === undefined ? all : all.filter((it) => it.peer === peer);
  }

  markRead(peer: UserId, seq: bigint): boolean {
    return this.#inside.driver.markRead(peer, seq);
  }

  on(listener: (event: Event) => void): () => void {
    return this.#inside.driver.events.on(listener);
  }

  [Symbol.asyncIterator](): AsyncIterator<Event> {
    return this.#inside.driver.events.iterate();
  }

  reconnect(): void {
    this.#inside.driver.reconnect();
  }

  async close(): Promise<void> {
    await this.#inside.driver.close();
    this.#release();
  }

  /** Ends at once: another tab owns the state now. */
  drop(): void {
    this.#inside.driver.drop();
    this.#release();
  }

  #release(): void {
    this.#inside.calls.close();
    this.#inside.store.close();
  }
}

