/**
 * Several tabs of one user as one device: one of them, the owner, has connection and
 * outbox; the others follow it. Any tab may close, crash or freeze at any time:
 * another takes over, and nothing is lost or sent twice.
 */

import type { Client, ClientOptions, ConnectionState, Event, MessageId, PendingMessage, Seq, UserId } from "./api.ts";
import { Calls } from "./calls.ts";
import { type ClientParts, type DirectClient, openClient, openDirect } from "./client.ts";
import { type Environment, systemEnvironment } from "./environment.ts";
import { closedError, DuologueError, toFailure } from "./errors.ts";
import { messageId } from "./ids.ts";
import type { Letter } from "./session.ts";
import { TAKEN_OVER } from "./store/indexedDb.ts";
import { Election, type Locks } from "./tabs/election.ts";
import { Follower } from "./tabs/follower.ts";
import type { Ask, Channel, Snapshot, Spoken, Told } from "./tabs/messages.ts";
import { Owner } from "./tabs/owner.ts";
import { View } from "./tabs/view.ts";
import { Tokens } from "./tokens.ts";
import { chatClient } from "./transport/grpcWeb.ts";

/** How long a superseded owner waits to learn that another tab did it. */
const SUPERSEDED_DELAY_MS = 500;

/** What tests put in the place of the browser's. */
export interface TabsParts {
  readonly locks: Locks;
  readonly channel: (name: string) => Channel;
  readonly client?: ClientParts;
}

/**
 * Opens the client of one tab. All tabs of a user that are opened so agree with each
 * other; where the browser has no Web Locks or no BroadcastChannel, this is
 * `openClient`.
 */
export async function openShared(options: ClientOptions): Promise<Client> {
  const locks = globalThis.navigator?.locks as Locks | undefined;
  if (locks === undefined || globalThis.BroadcastChannel === undefined) return openClient(options);
  try {
    // Where a browser forbids storage, it forbids these, too.
    await locks.request(`duologue/${options.user}/allowed`, {}, () => Promise.resolve());
    new BroadcastChannel(`duologue/${options.user}/allowed`).close();
  } catch {
    return openClient(options);
  }
  const channel = (name: string) => new BroadcastChannel(name) as Channel;
  return openTab(options, { locks, channel });
}

export async function openTab(options: ClientOptions, parts: TabsParts): Promise<Client> {
  const tab = new TabClient(options, parts);
  await tab.ready;
  return tab;
}

class TabClient implements Client {
  readonly user: UserId;
  /** Resolves once there is an owner, this tab or another. */
  readonly ready: Promise<void>;
  readonly #options: ClientOptions;
  readonly #parts: ClientParts;
  readonly #environment: Environment;
  readonly #id: string;
  readonly #channel: Channel;
  readonly #election: Election;
  readonly #calls: Calls;
  readonly #view: View;
  readonly #follower: Follower;
  readonly #unwatch: () => void;
  #owner: Owner | undefined;
  /** Rises with every change of this tab's part. */
  #part = 0;
  /** The owner's term: this tab's own, or the highest that was heard. */
  #term = 0;
  /** Frozen, or kept aside by the browser. */
  #isAside = false;
  #state: ConnectionState = { kind: "connecting", attempt: 1 };
  #durability: Client["durability"] = { durable: false, reason: "no tab has opened the store yet" };
  #isReady: { resolve(): void; reject(error: Error): void } = { resolve: () => undefined, reject: () => undefined };

  constructor(options: ClientOptions, { locks, channel, client = {} }: TabsParts) {
    this.user = options.user;
    this.#options = options;
    this.#parts = client;
    this.#environment = client.environment ?? systemEnvironment();
    this.#id = messageId(this.#environment.wall(), this.#environment.bytes(16));
    this.#calls = new Calls(client.chat ?? chatClient(options.url), new Tokens(options.token, this.#environment));
    this.#view = new View((peer, query) => this.messages(peer, query), this.#environment);
    this.#follower = new Follower((ask) => this.#say(ask), this.#environment);
    this.ready = new Promise((resolve, reject) => (this.#isReady = { resolve, reject }));
    const name = `duologue/${options.user}`;
    this.#channel = channel(name);
    this.#channel.onmessage = ({ data }) => this.#heard(data as Spoken);
    this.#election = new Election(locks, name, {
      elected: () => void this.#own(),
      deposed: () => this.#follow(),
    });
    const nothing = () => undefined;
    this.#unwatch = this.#environment.watch({
      online: nothing,
      offline: nothing,
      awake: () => this.#awake(),
      asleep: () => this.#asleep(),
    });
    this.#follow();
  }

  get state(): ConnectionState {
    return this.#owner?.client.state ?? this.#state;
  }

  get durability(): Client["durability"] {
    return this.#owner?.client.durability ?? this.#durability;
  }

  async send(peer: UserId, text: string): Promise<PendingMessage> {
    this.#mustBeOpen();
    const writtenAt = this.#environment.wall();
    const id = messageId(writtenAt, this.#environment.bytes(16));
    const letter: Letter = { id, peer, text, writtenAt };
    this.#follower.wrote(letter, this.#view.known(peer));
    if (this.#owner) await this.#keep(this.#owner, letter);
    else await this.#follower.ask({ kind: "send", letter });
    return { messageId: id, peer, text, writtenAt: new Date(writtenAt) };
  }

  async abandon(id: MessageId): Promise<void> {
    this.#mustBeOpen();
    this.#follower.forget(id);
    if (this.#owner) await this.#owner.client.abandon(id);
    else await this.#follower.ask({ kind: "abandon", id });
    this.#view.gone(id);
  }

  pending(peer?: UserId): PendingMessage[] {
    return this.#owner?.client.pending(peer) ?? this.#view.pending(peer);
  }

  markRead(peer: UserId, seq: Seq): void {
    if (this.#owner) this.#owner.markRead(peer, seq);
    else this.#follower.read(peer, seq);
  }

  readonly conversations: Client["conversations"] = (query) => this.#calls.conversations(query);
  readonly messages: Client["messages"] = (peer, query) => this.#calls.messages(peer, query);
  readonly onlineUsers: Client["onlineUsers"] = (query) => this.#calls.onlineUsers(query);
  readonly presence: Client["presence"] = (user) => this.#calls.presence(user);

  on(listener: (event: Event) => void): () => void {
    return this.#view.hub.on(listener);
  }

  [Symbol.asyncIterator](): AsyncIterator<Event> {
    return this.#view.hub.iterate();
  }

  reconnect(): void {
    if (this.#owner) this.#owner.client.reconnect();
    else this.#say({ kind: "reconnect" });
  }

  async close(): Promise<void> {
    if (this.#state.kind === "closed") return;
    const owner = this.#owner;
    this.#part += 1;
    this.#owner = undefined;
    this.#unwatch();
    this.#show({ type: "state", state: { kind: "closed" } });
    this.#follower.close(closedError());
    this.#calls.close();
    this.#view.close();
    await owner?.client.close();
    this.#election.resign();
    this.#channel.close();
  }

  /** Another tab owns, or there will be one: this one, if it is the next in the queue. */
  #follow(): void {
    // Replaced while its last messages were being answered.
    if (this.#state.kind === "closed") return;
    this.#part += 1;
    this.#isAside = false;
    this.#owner?.client.drop();
    this.#owner = undefined;
    this.#election.stand();
    this.#say({ kind: "join" });
    this.#follower.askAgain();
    this.#follower.watch(() => this.#election.steal(), true);
  }

  async #own(): Promise<void> {
    this.#part += 1;
    const part = this.#part;
    this.#follower.unwatch();
    let client: DirectClient;
    try {
      client = await openDirect(this.#options, this.#parts);
    } catch (error) {
      return this.#cannotOwn(error);
    }
    // Deposed or closed meanwhile.
    if (part !== this.#part) return client.drop();
    const owner = new Owner(client, (told) => this.#tell(told), (event) => this.#showOwn(event, part));
    this.#owner = owner;
    this.#term = Math.max(this.#environment.wall(), this.#term + 1);
    this.#view.setPending(client.pending());
    this.#view.catchUp(client.positions());
    this.#isReady.resolve();
    this.#tell({ kind: "owner" });
    this.#takeOver(owner);
    await owner.feed();
  }

  /** What this tab has asked of, or given to, the owner before is its own now. */
  #takeOver(owner: Owner): void {
    const questions = this.#follower.takeQuestions();
    for (const letter of this.#follower.written()) {
      const asked = questions.find(({ ask }) => ask.kind === "send" && ask.letter.id === letter.id);
      this.#keep(owner, letter).then(
        () => asked?.resolve(),
        (error: Error) => asked?.reject(error),
      );
    }
    for (const { peer, seq } of this.#follower.takeReads()) owner.markRead(peer, seq);
    for (const { ask, resolve, reject } of questions) {
      if (ask.kind === "abandon") owner.client.abandon(ask.id).then(resolve, reject);
    }
  }

  async #keep(owner: Owner, letter: Letter): Promise<void> {
    try {
      this.#follower.kept(letter.id, await owner.keep(letter));
    } catch (error) {
      // Given up by a tab that has lost its part: the next owner is asked.
      const isReplaced = this.#owner !== owner || (error instanceof DuologueError && error.reason === TAKEN_OVER);
      if (isReplaced && this.#state.kind !== "closed") {
        const again = this.#follower.written().find(({ id }) => id === letter.id) ?? letter;
        const next = this.#owner === owner ? undefined : this.#owner;
        return next ? this.#keep(next, again) : this.#follower.ask({ kind: "send", letter: again });
      }
      this.#follower.forget(letter.id);
      throw error;
    }
  }

  #cannotOwn(error: unknown): void {
    const failure = toFailure(error);
    this.#show({ type: "state", state: { kind: "stopped", reason: "storage", detail: failure.message } });
    this.#isReady.reject(failure);
    void this.close();
  }

  async #showOwn(event: Event, part: number): Promise<void> {
    if (event.type === "state" && event.state.kind === "superseded") {
      await new Promise<void>((resolve) => void this.#environment.after(SUPERSEDED_DELAY_MS, resolve));
      if (part !== this.#part) return;
      // A tab that was elected in its sleep has opened the store before it knew that
      // it was replaced. Nobody but this one holds the lock: it opens it again.
      if (this.#owner?.client.isTakenOver) return this.#reopen();
      this.#tell({ kind: "event", event });
    }
    if (part === this.#part) await this.#show(event);
  }

  #reopen(): void {
    this.#owner?.client.drop();
    this.#owner = undefined;
    void this.#own();
  }

  #show(event: Event): Promise<void> {
    if (event.type === "state") this.#state = event.state;
    this.#follower.note(event);
    return this.#view.push(event);
  }

  #heard(spoken: Spoken): void {
    if (this.#state.kind === "closed") return;
    if (spoken.ask !== undefined) {
      this.#owner?.answer(spoken.from, spoken.ask);
      return;
    }
    const { told, term } = spoken;
    if (term < this.#term) return;
    // This tab was replaced while it slept.
    if (this.#owner !== undefined) this.#follow();
    this.#term = term;
    if ("to" in told && told.to !== this.#id) return;
    if (!this.#election.isOwner && !this.#isAside) this.#follower.watch(() => this.#election.steal());
    this.#obey(told);
  }

  #obey(told: Told): void {
    switch (told.kind) {
      case "alive":
        return;
      case "owner":
        this.#say({ kind: "join" });
        return this.#follower.askAgain();
      case "event":
        return void this.#show(told.event);
      case "snapshot":
        return this.#join(told.snapshot);
      case "kept":
      case "done":
      case "failed":
        return this.#follower.answered(told);
    }
  }

  #join({ state, durability, pending, connected, positions, online }: Snapshot): void {
    this.#durability = durability;
    this.#view.setPending(pending);
    this.#view.catchUp(positions);
    if (connected) void this.#show(connected);
    void this.#show({ type: "state", state });
    void this.#show({ type: "presence-reset" });
    for (const presence of online) void this.#show({ type: "presence", presence });
    this.#isReady.resolve();
  }

  /** About to be frozen: another tab, if there is one, takes over at once. */
  #asleep(): void {
    if (this.#state.kind === "closed") return;
    this.#isAside = true;
    this.#election.resign();
    this.#follower.unwatch();
    this.#part += 1;
    this.#owner?.client.drop();
    this.#owner = undefined;
  }

  #awake(): void {
    if (this.#state.kind === "closed") return;
    if (this.#isAside) this.#follow();
    else if (!this.#election.isOwner) this.#follower.watch(() => this.#election.steal(), true);
  }

  #say(ask: Ask): void {
    if (this.#state.kind !== "closed") this.#channel.postMessage({ from: this.#id, ask });
  }

  #tell(told: Told): void {
    if (this.#state.kind !== "closed") this.#channel.postMessage({ from: this.#id, term: this.#term, told });
  }

  #mustBeOpen(): void {
    if (this.#state.kind === "closed") throw closedError();
  }
}
