/** What each way in makes of closes, errors and answers. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";

import { DuologueError, toFailure } from "../src/errors.ts";
import {
  ConverseRequestSchema,
  type ConverseResponse,
  ConverseResponseSchema,
} from "../src/generated/duologue/chat/v1/chat_pb.ts";
import { HelloSchema, SendMessageSchema } from "../src/generated/duologue/chat/v1/frames_pb.ts";
import { ErrorInfoSchema, RetryInfoSchema } from "../src/generated/google/rpc/error_details_pb.ts";
import { type LinkEnd, lost } from "../src/session/types.ts";
import { sendRefused } from "../src/transport/answers.ts";
import { AutoTransport } from "../src/transport/auto.ts";
import { endOf } from "../src/transport/ends.ts";
import type { LinkHandlers, Transport } from "../src/transport/transport.ts";
import { type WebSocketLike, WebSocketTransport } from "../src/transport/websocket.ts";
import { down } from "./support/server.ts";

class FakeSocket implements WebSocketLike {
  static last: FakeSocket;
  binaryType = "blob";
  protocol = "duologue.v1.proto";
  bufferedAmount = 0;
  onopen: WebSocketLike["onopen"] = null;
  onmessage: WebSocketLike["onmessage"] = null;
  onclose: WebSocketLike["onclose"] = null;
  onerror: WebSocketLike["onerror"] = null;
  readonly sent: Uint8Array[] = [];
  closed: number | undefined;
  readonly url: string;
  readonly protocols: string[];

  constructor(url: string, protocols: string[]) {
    this.url = url;
    this.protocols = protocols;
    FakeSocket.last = this;
  }

  send(data: Uint8Array): void {
    this.sent.push(data);
  }

  close(code?: number): void {
    this.closed = code;
  }

  tell(handler: "onopen" | "onmessage" | "onclose", event: unknown): void {
    this[handler]?.(event as never);
  }
}

function recorded() {
  const frames: ConverseResponse[] = [];
  const ends: LinkEnd[] = [];
  const handlers: LinkHandlers = {
    opened: () => undefined,
    frame: (frame) => void frames.push(frame),
    answer: (frame) => void frames.push(frame),
    drained: () => undefined,
    ended: (end) => void ends.push(end),
  };
  return { frames, ends, handlers };
}

function openSocket(url = "https://chat.example") {
  const record = recorded();
  const hello = create(HelloSchema, { deviceId: "device" });
  const link = new WebSocketTransport(url, FakeSocket).open(hello, "a token", record.handlers);
  return { ...record, link, socket: FakeSocket.last };
}

test("the token goes in Hello and not in the URL", () => {
  const { socket } = openSocket();
  assert.deepEqual([socket.url, socket.protocols], ["wss://chat.example/ws", ["duologue.v1.proto"]]);
  assert.equal(openSocket("http://127.0.0.1:8080/").socket.url, "ws://127.0.0.1:8080/ws");
  socket.tell("onopen", {});
  const { frame } = fromBinary(ConverseRequestSchema, socket.sent[0] ?? new Uint8Array());
  assert.ok(frame.case === "hello");
  assert.deepEqual([frame.value.accessToken, frame.value.deviceId], ["a token", "device"]);
});

test("close codes have the consequences of the statuses that they stand for", () => {
  const kindOf = (code: number) => {
    const { socket, ends } = openSocket();
    socket.tell("onopen", {});
    socket.tell("onclose", { code, reason: "SOME_REASON" });
    assert.equal(ends[0]?.cause, "SOME_REASON");
    return ends[0]?.kind;
  };
  for (const code of [1000, 1001, 1006, 1011, 1013, 4408, 4429]) assert.equal(kindOf(code), "lost", `${code}`);
  for (const code of [1008, 1009, 4403]) assert.equal(kindOf(code), "refused", `${code}`);
  assert.equal(kindOf(4401), "unauthenticated");
  assert.equal(kindOf(4409), "superseded");
  assert.equal(kindOf(4412), "history-changed");
});

test("frames come as they are; what is none ends the link, once", () => {
  const { socket, frames, ends } = openSocket();
  socket.tell("onopen", {});
  const heartbeat = toBinary(ConverseResponseSchema, down({ case: "heartbeat", value: {} }));
  socket.tell("onmessage", { data: heartbeat.buffer.slice(0, heartbeat.length) });
  assert.equal(frames[0]?.frame.case, "heartbeat");
  socket.tell("onmessage", { data: "{}" });
  socket.tell("onmessage", { data: heartbeat.buffer });
  socket.tell("onclose", { code: 1000, reason: "" });
  assert.deepEqual([frames.length, ends.length, ends[0]?.kind], [1, 1, "lost"]);
});

test("a server that does not speak the subprotocol is none", () => {
  const { socket, ends } = openSocket();
  socket.protocol = "";
  socket.tell("onopen", {});
  assert.deepEqual([socket.sent.length, ends[0]?.kind], [0, "lost"]);
});

/** A way in that is open or not, and counts. */
function way(works: { now: boolean }): Transport & { count: number } {
  return {
    count: 0,
    open(_hello, _token, handlers) {
      this.count += 1;
      if (works.now) void handlers.frame(down({ case: "heartbeat", value: {} }), 0);
      handlers.ended(lost("over"));
      return { canSend: false, send: () => undefined, finish: () => undefined, drop: () => undefined };
    },
  };
}

test("gRPC-Web is used where only that works, and WebSocket tried again later", () => {
  let now = 0;
  const [byWebSocket, byGrpcWeb] = [{ now: false }, { now: false }];
  const [websocket, grpcWeb] = [way(byWebSocket), way(byGrpcWeb)];
  const auto = new AutoTransport(websocket, grpcWeb, () => now);
  const open = (times: number) => {
    for (let count = 0; count < times; count += 1) auto.open(create(HelloSchema), "", recorded().handlers);
    const counts = [websocket.count, grpcWeb.count];
    websocket.count = grpcWeb.count = 0;
    return counts;
  };
  assert.deepEqual(open(4), [2, 2], "the network is off");
  byGrpcWeb.now = true;
  assert.deepEqual(open(5), [1, 4]);
  now += 11 * 60_000;
  assert.deepEqual(open(5), [1, 4], "tried again, in vain");
  byWebSocket.now = true;
  now += 11 * 60_000;
  assert.deepEqual(open(5), [5, 0]);
  byWebSocket.now = byGrpcWeb.now = false;
  assert.deepEqual(open(8), [6, 2], "WebSocket has worked: it is rather the server that is away");
  byGrpcWeb.now = true;
  assert.deepEqual(open(5), [3, 2], "it may be a proxy nevertheless");
});

function failure(code: Code, reason?: string): DuologueError {
  const error = new ConnectError("what happened", code);
  const retryInfo = create(RetryInfoSchema, { retryDelay: { seconds: 2n } });
  error.details = [{ type: RetryInfoSchema.typeName, value: toBinary(RetryInfoSchema, retryInfo) }];
  if (reason !== undefined) {
    const info = create(ErrorInfoSchema, { reason, domain: "duologue" });
    error.details.push({ type: ErrorInfoSchema.typeName, value: toBinary(ErrorInfoSchema, info) });
  }
  return toFailure(error);
}

test("errors carry code, reason and delay", () => {
  const error = failure(Code.FailedPrecondition, "HISTORY_CHANGED");
  assert.deepEqual(
    { ...error, message: error.message },
    { name: "DuologueError", code: "failed_precondition", message: "what happened", reason: "HISTORY_CHANGED", retryAfterMs: 2_000 },
  );
});

test("the status of a stream has its consequence", () => {
  const kinds = (code: Code, reason?: string) => endOf(failure(code, reason)).kind;
  assert.equal(kinds(Code.Aborted, "SUPERSEDED"), "superseded");
  assert.equal(kinds(Code.Aborted, "CONTENDED"), "lost");
  assert.equal(kinds(Code.Unauthenticated), "unauthenticated");
  assert.equal(kinds(Code.FailedPrecondition, "POSITION_AHEAD"), "history-changed");
  assert.equal(kinds(Code.InvalidArgument, "INVALID_SYNC_TOKEN"), "refused");
  assert.equal(kinds(Code.InvalidArgument), "lost", "of a response that broke off in a message");
  assert.equal(kinds(Code.Unavailable), "lost");
  assert.equal(endOf(failure(Code.Unavailable)).retryAfterMs, 2_000);
});

test("a unary send is refused for good only by the server itself", () => {
  const message = create(SendMessageSchema, { peer: "bob", messageId: "m-1" });
  const refused = (code: Code, reason?: string) => {
    const { frame } = sendRefused(message, failure(code, reason));
    return frame.case === "rejected" || frame.case === "deferred" ? [frame.case, frame.value.reason] : [];
  };
  assert.deepEqual(refused(Code.InvalidArgument, "INVALID_FIELD"), ["rejected", 1]);
  assert.deepEqual(refused(Code.AlreadyExists, "MESSAGE_ID_REUSED"), ["rejected", 3]);
  assert.deepEqual(refused(Code.InvalidArgument), ["deferred", 6], "by a proxy");
  assert.deepEqual(refused(Code.OutOfRange, "AFTER_SEQ_TOO_OLD"), ["deferred", 3]);
  assert.deepEqual(refused(Code.FailedPrecondition, "AFTER_SEQ_AHEAD"), ["deferred", 4]);
  assert.deepEqual(refused(Code.ResourceExhausted, "RATE_LIMITED"), ["deferred", 2]);
  assert.deepEqual(refused(Code.Unavailable), ["deferred", 6]);
});
