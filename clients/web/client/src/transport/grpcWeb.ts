/**
 * A session over gRPC-Web: `Subscribe` brings frames down, unary calls carry frames
 * up and their answers are turned into the frames that `Converse` would have sent.
 */

import { create } from "@bufbuild/protobuf";
import { type CallOptions, type Client, createClient } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";

import {
  ChatService,
  type ConverseRequest,
  type ConverseResponse,
  ConverseResponseSchema,
} from "../generated/duologue/chat/v1/chat_pb.ts";
import type { AdvanceCursor, Hello, SendMessage } from "../generated/duologue/chat/v1/frames_pb.ts";
import { type DuologueError, toFailure } from "../errors.ts";
import { CALL_TIMEOUT_MS } from "../limits.ts";
import { lost } from "../session/types.ts";
import { cursorRefused, cursorStored, down, sendRefused, stored } from "./answers.ts";
import { endOf } from "./ends.ts";
import type { Link, LinkHandlers, Transport } from "./transport.ts";

/** Calls at a time: browsers have six connections to an HTTP/1.1 server, the stream
 * takes one, and the application's own calls need some. */
const MAX_CALLS = 3;

export type ChatClient = Client<typeof ChatService>;

export function chatClient(baseUrl: string, fetch?: typeof globalThis.fetch): ChatClient {
  const options = { baseUrl, useBinaryFormat: true, ...(fetch && { fetch }) };
  return createClient(ChatService, createGrpcWebTransport(options));
}

export class GrpcWebTransport implements Transport {
  readonly #client: ChatClient;

  constructor(client: ChatClient) {
    this.#client = client;
  }

  open(hello: Hello, token: string, handlers: LinkHandlers): Link {
    const link = new GrpcWebLink(this.#client, token, handlers);
    void link.subscribe(hello);
    return link;
  }
}

class GrpcWebLink implements Link {
  readonly #client: ChatClient;
  readonly #headers: { authorization: string };
  readonly #handlers: LinkHandlers;
  readonly #abort = new AbortController();
  #calls = 0;

  constructor(client: ChatClient, token: string, handlers: LinkHandlers) {
    this.#client = client;
    this.#headers = { authorization: `Bearer ${token}` };
    this.#handlers = handlers;
  }

  get canSend(): boolean {
    return this.#calls < MAX_CALLS;
  }

  async subscribe(hello: Hello): Promise<void> {
    const { $typeName: _type, accessToken: _token, $unknown: _unknown, ...request } = hello;
    // One send of a conversation at a time: unary calls may overtake each other.
    const onHeader = () => this.#tell(({ opened }) => opened(1));
    try {
      const frames = this.#client.subscribe(request, { ...this.#options(), onHeader, timeoutMs: 0 });
      for await (const { frame } of frames) {
        if (this.#isDropped) return;
        await this.#handlers.frame(create(ConverseResponseSchema, { frame }), 0);
      }
      this.#end(() => lost("the server ended the stream"));
    } catch (error) {
      this.#end(() => endOf(toFailure(error)));
    }
  }

  send({ frame }: ConverseRequest): void {
    switch (frame.case) {
      case "sendMessage":
        return this.#call(this.#sendMessage(frame.value));
      case "advanceCursor":
        return this.#call(this.#advanceCursor(frame.value));
      case "ping":
        return this.#call(this.#ping());
      // These calls belong to no session, which keeps no list of deferred messages.
      case "abandon":
      case "hello":
      case undefined:
        return;
    }
  }

  finish(): void {
    queueMicrotask(() => this.#end(() => lost("the client ended the stream")));
  }

  drop(): void {
    this.#abort.abort();
  }

  get #isDropped(): boolean {
    return this.#abort.signal.aborted;
  }

  #options(): CallOptions {
    return { headers: this.#headers, signal: this.#abort.signal };
  }

  #call(answer: Promise<ConverseResponse | undefined>): void {
    this.#calls += 1;
    void answer.then((frame) => {
      this.#calls -= 1;
      if (frame !== undefined) this.#tell(({ answer: told }) => told(frame));
      this.#tell(({ drained }) => drained());
    });
  }

  async #sendMessage(message: SendMessage): Promise<ConverseResponse | undefined> {
    const { peer, messageId = "", afterSeq = 0n, body } = message;
    try {
      const request = { peer, messageId, afterSeq, ...(body && { body }) };
      return stored(peer, await this.#client.sendMessage(request, this.#unary()));
    } catch (error) {
      return this.#refused(error, (failure) => sendRefused(message, failure));
    }
  }

  async #advanceCursor(move: AdvanceCursor): Promise<ConverseResponse | undefined> {
    const { peer, delivered, read } = move;
    const request = { peer, ...(delivered !== undefined && { delivered }), ...(read !== undefined && { read }) };
    try {
      return cursorStored(peer, await this.#client.advanceCursor(request, this.#unary()));
    } catch (error) {
      return this.#refused(error, (failure) => cursorRefused(peer, failure));
    }
  }

  /** It shows that the network works; whether the stream does, its heartbeats
   * show. So does a refusal of the server's own. */
  async #ping(): Promise<ConverseResponse | undefined> {
    const pong = down({ case: "pong", value: { $typeName: "duologue.chat.v1.Pong" } });
    try {
      await this.#client.listConversations({ pageSize: 1 }, this.#unary());
      return pong;
    } catch (error) {
      return this.#refused(error, ({ reason }) => (reason === undefined ? undefined : pong));
    }
  }

  /** A refused token ends the link; anything else is an answer. */
  #refused(
    error: unknown,
    answer: (failure: DuologueError) => ConverseResponse | undefined,
  ): ConverseResponse | undefined {
    const failure = toFailure(error);
    if (failure.code !== "unauthenticated") return answer(failure);
    this.#end(() => endOf(failure));
    return undefined;
  }

  #unary(): CallOptions {
    return { ...this.#options(), timeoutMs: CALL_TIMEOUT_MS };
  }

  #tell(tell: (handlers: LinkHandlers) => void): void {
    if (!this.#isDropped) tell(this.#handlers);
  }

  #end(end: () => ReturnType<typeof endOf>): void {
    if (this.#isDropped) return;
    this.drop();
    this.#handlers.ended(end());
  }
}
