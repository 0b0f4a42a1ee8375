/**
 * Both ways in, on the wire: gRPC-Web as connect speaks it, and a WebSocket of the
 * package `ws`, with the model behind them.
 */

import assert from "node:assert/strict";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { test } from "node:test";

import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { Code, ConnectError, createConnectRouter, type HandlerContext } from "@connectrpc/connect";
import { createFetchHandler } from "@connectrpc/connect/protocol";
import { IDBFactory } from "fake-indexeddb";
import { WebSocket, WebSocketServer } from "ws";

import type { Client, Event } from "../src/api.ts";
import { openDirect } from "../src/client.ts";
import {
  ChatService,
  type ConverseRequest,
  ConverseRequestSchema,
  type ConverseResponse,
  ConverseResponseSchema,
} from "../src/generated/duologue/chat/v1/chat_pb.ts";
import { DeferredReason } from "../src/generated/duologue/chat/v1/frames_pb.ts";
import { ErrorInfoSchema } from "../src/generated/google/rpc/error_details_pb.ts";
import { chatClient } from "../src/transport/grpcWeb.ts";
import { Server } from "./support/server.ts";

const GOOD = "good-token";

async function until(what: string, isTrue: () => boolean): Promise<void> {
  const end = Date.now() + 10_000;
  while (!isTrue()) {
    if (Date.now() > end) throw new Error(`not in time: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** The model behind gRPC-Web, as a `fetch`. */
class GrpcWebDoor {
  readonly server = new Server("alice");
  isDown = false;
  subscriptions = 0;
  #waiting: (() => void) | undefined;
  #down: ConverseResponse[] = [];
  #cut = new AbortController();

  readonly fetch: typeof fetch = async (input, init) => {
    if (this.isDown) throw new TypeError("fetch failed");
    const request = new Request(input, init);
    const router = createConnectRouter({ connect: false, grpc: false });
    router.service(ChatService, {
      subscribe: (hello, context) => this.#subscribe(hello, context),
      sendMessage: (value, context) => {
        const answer = this.#unary(context, { case: "sendMessage", value: { ...value, $typeName: "duologue.chat.v1.SendMessage" } });
        if (answer?.frame.case !== "stored") throw refusal(answer);
        const { messageId, seq, duplicate } = answer.frame.value;
        return { messageId, seq, duplicate };
      },
      advanceCursor: (value, context) => {
        const answer = this.#unary(context, { case: "advanceCursor", value: { ...value, $typeName: "duologue.chat.v1.AdvanceCursor" } });
        const cursor = answer?.frame.case === "cursorStored" ? answer.frame.value.cursor : undefined;
        return { delivered: cursor?.delivered ?? 0n, read: cursor?.read ?? 0n };
      },
      listMessages: ({ peer, afterSeq }) => this.server.page(peer, afterSeq ?? 0n),
    });
    const path = new URL(request.url).pathname;
    const handler = router.handlers.find(({ requestPath }) => requestPath === path);
    assert.ok(handler, path);
    return createFetchHandler(handler)(request);
  };

  /** The stream ends, and the session with it. */
  cut(): void {
    this.server.hangUp();
    this.#cut.abort();
  }

  push(frames: readonly ConverseResponse[]): void {
    this.#down.push(...frames);
    this.#waiting?.();
  }

  async *#subscribe(hello: object, context: HandlerContext) {
    authorize(context);
    this.subscriptions += 1;
    const cut = new AbortController();
    this.#cut = cut;
    const value = { ...hello, $typeName: "duologue.chat.v1.Hello", accessToken: "" } as never;
    this.#down = this.server.read(create(ConverseRequestSchema, { frame: { case: "hello", value } }), "store");
    while (!cut.signal.aborted && !context.signal.aborted) {
      for (const { frame } of this.#down.splice(0)) yield { frame } as never;
      const more = new Promise<void>((resolve) => (this.#waiting = resolve));
      await Promise.race([more, once(cut.signal, "abort"), once(context.signal, "abort")]);
    }
    if (cut.signal.aborted) throw new ConnectError("shutting down", Code.Unavailable);
  }

  #unary(context: HandlerContext, frame: ConverseRequest["frame"]): ConverseResponse | undefined {
    authorize(context);
    const [answer, ...delivered] = this.server.read(create(ConverseRequestSchema, { frame }), "answer-then-deliver");
    this.push(delivered);
    return answer;
  }
}

function authorize({ requestHeader }: HandlerContext): void {
  if (requestHeader.get("authorization") === `Bearer ${GOOD}`) return;
  throw new ConnectError("the token has expired", Code.Unauthenticated);
}

function refusal(answer: ConverseResponse | undefined): ConnectError {
  const isTooOld = answer?.frame.case === "deferred" && answer.frame.value.reason === DeferredReason.AFTER_SEQ_TOO_OLD;
  if (!isTooOld) return new ConnectError("later", Code.Unavailable);
  const details = [{ desc: ErrorInfoSchema, value: { reason: "AFTER_SEQ_TOO_OLD", domain: "duologue" } }];
  return new ConnectError("too old", Code.OutOfRange, undefined, details);
}

async function record(opening: Promise<Client>): Promise<{ client: Client; events: Event[] }> {
  const client = await opening;
  const events: Event[] = [];
  client.on((event) => events.push(event));
  return { client, events };
}

const shown = (events: readonly Event[]) => events.flatMap((it) => (it.type === "message" ? [it.message.messageId] : []));

test("gRPC-Web: sends, deliveries, a cut stream and a renewed token", async () => {
  globalThis.indexedDB = new IDBFactory();
  const door = new GrpcWebDoor();
  const asked: boolean[] = [];
  const token = ({ refused }: { refused: boolean }) => {
    asked.push(refused);
    return refused ? GOOD : asked.length === 1 ? "old-token" : GOOD;
  };
  const options = { url: "http://door", user: "alice", transport: "grpc-web", token } as const;
  const { client, events } = await record(openDirect(options, { chat: chatClient("http://door", door.fetch) }));
  await until("connected", () => client.state.kind === "connected");
  assert.deepEqual(asked, [false, true]);
  const sent = await Promise.all(Array.from({ length: 20 }, (_, number) => client.send("bob", `${number}`)));
  const ids = sent.map(({ messageId }) => messageId);
  await until("stored", () => client.pending().length === 0);
  assert.deepEqual(door.server.ownIds("bob"), ids, "in the order they were sent");

  door.cut();
  door.server.otherSends("bob", "bob");
  await until("again", () => door.subscriptions === 2 && client.state.kind === "connected");
  await until("shown", () => shown(events).length === 21);
  assert.deepEqual(shown(events).slice(0, 20), ids);
  client.markRead("bob", 21n);
  await until("read", () => door.server.cursor("bob").read === 21n);
  const page = await client.messages("bob", { direction: "forward", after: 19n });
  assert.deepEqual([page.items.length, page.head], [2, 21n]);
  await client.close();
});

test("gRPC-Web: a message that was tried long ago is looked for, and sent once", async () => {
  globalThis.indexedDB = new IDBFactory();
  const door = new GrpcWebDoor();
  const options = { url: "http://door", user: "alice", transport: "grpc-web", token: () => GOOD } as const;
  door.isDown = true;
  const open = () => record(openDirect(options, { chat: chatClient("http://door", door.fetch) }));
  const before = await open();
  const { messageId } = await before.client.send("bob", "written offline");
  await before.client.close();
  for (let count = 0; count < 12; count += 1) door.server.otherSends("bob", "bob");
  door.isDown = false;
  const { client } = await open();
  await until("stored", () => client.pending().length === 0);
  assert.deepEqual(door.server.ownIds("bob"), [messageId]);
  await client.close();
});

test("WebSocket: sends, deliveries and a connection that is cut", async () => {
  globalThis.indexedDB = new IDBFactory();
  const server = new Server("alice");
  const sockets = new WebSocketServer({ port: 0, host: "127.0.0.1", path: "/ws" });
  await once(sockets, "listening");
  const tokens: string[] = [];
  sockets.on("connection", (socket) => {
    socket.on("message", (data: Buffer) => {
      const request = fromBinary(ConverseRequestSchema, data);
      if (request.frame.case === "hello") tokens.push(request.frame.value.accessToken);
      for (const frame of server.read(request, "store")) socket.send(toBinary(ConverseResponseSchema, frame));
    });
    socket.on("close", () => server.hangUp());
  });
  const { port } = sockets.address() as AddressInfo;
  const options = { url: `http://127.0.0.1:${port}`, user: "alice", transport: "websocket", token: () => GOOD } as const;
  const { client, events } = await record(openDirect({ ...options, webSocket: WebSocket }));
  await until("connected", () => client.state.kind === "connected");
  const sent: string[] = [];
  for (let number = 0; number < 60; number += 1) {
    sent.push((await client.send("bob", `${number}`)).messageId);
    if (number % 20 === 10) for (const socket of sockets.clients) socket.terminate();
  }
  await until("stored and shown", () => client.pending().length === 0 && shown(events).length === 60);
  assert.deepEqual(server.ownIds("bob"), sent);
  assert.deepEqual(shown(events), sent);
  assert.deepEqual(new Set(tokens), new Set([GOOD]));
  await client.close();
  await new Promise((resolve) => sockets.close(resolve));
});
