/** Questions to the server that belong to no session: unary calls over gRPC-Web. */

import type { CallOptions } from "@connectrpc/connect";

import type {
  Conversation,
  Message,
  MessagesQuery,
  Page,
  PageQuery,
  Presence,
  Seq,
  UserId,
} from "./api.ts";
import { DuologueError, toFailure } from "./errors.ts";
import { Direction } from "./generated/duologue/chat/v1/model_pb.ts";
import { CALL_TIMEOUT_MS } from "./limits.ts";
import { inConversation, toConversation, toPresence } from "./session/convert.ts";
import type { Tokens } from "./tokens.ts";
import type { ChatClient } from "./transport/grpcWeb.ts";

export class Calls {
  readonly #client: ChatClient;
  readonly #tokens: Tokens;
  readonly #abort = new AbortController();

  constructor(client: ChatClient, tokens: Tokens) {
    this.#client = client;
    this.#tokens = tokens;
  }

  /** What is under way fails. */
  close(): void {
    this.#abort.abort();
  }

  /** Makes a call; once more with a new token if the last is refused. */
  async call<T>(make: (client: ChatClient, options: CallOptions) => Promise<T>): Promise<T> {
    let token = await this.#tokens.cached();
    for (let isRenewed = false; ; isRenewed = true) {
      const headers = { authorization: `Bearer ${token}` };
      try {
        return await make(this.#client, { headers, timeoutMs: CALL_TIMEOUT_MS, signal: this.#abort.signal });
      } catch (error) {
        const failure = toFailure(error);
        if (failure.code !== "unauthenticated" || isRenewed) throw failure;
        token = await this.#tokens.ask(token);
      }
    }
  }

  async conversations(query: PageQuery = {}): Promise<Page<Conversation>> {
    const page = await this.call((client, options) => client.listConversations(query, options));
    return toPage(page.conversations.map(toConversation), page.nextPageToken);
  }

  async messages(peer: UserId, query: MessagesQuery = {}): Promise<Page<Message> & { head: Seq }> {
    const { direction, after: afterSeq, before: beforeSeq, ...paging } = query;
    const request = {
      peer,
      ...paging,
      direction: direction === "forward" ? Direction.FORWARD : Direction.BACKWARD,
      ...(afterSeq !== undefined && { afterSeq }),
      ...(beforeSeq !== undefined && { beforeSeq }),
    };
    const page = await this.call((client, options) => client.listMessages(request, options));
    const messages = page.messages.map((envelope) => inConversation(envelope, peer));
    return { ...toPage(messages, page.nextPageToken), head: page.head };
  }

  async onlineUsers(query: PageQuery = {}): Promise<Page<Presence>> {
    const page = await this.call((client, options) => client.listUsers(query, options));
    return toPage(page.users.map(toPresence), page.nextPageToken);
  }

  async presence(user: UserId): Promise<Presence> {
    const answer = await this.call((client, options) => client.getPresence({ user }, options));
    const presence = toPresence(answer.presence);
    if (presence === undefined) throw new DuologueError("internal", "the answer to GetPresence is malformed");
    return presence;
  }
}

function toPage<T>(items: (T | undefined)[], nextPageToken: string): Page<T> {
  const known = items.filter((it) => it !== undefined);
  return { items: known, ...(nextPageToken !== "" && { nextPageToken }) };
}
