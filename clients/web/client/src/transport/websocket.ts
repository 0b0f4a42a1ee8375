/** The frames of `Converse` over a WebSocket: subprotocol `duologue.v1.proto`. */

import { create, fromBinary, toBinary } from "@bufbuild/protobuf";

import {
  type ConverseRequest,
  ConverseRequestSchema,
  type ConverseResponse,
  ConverseResponseSchema,
} from "../generated/duologue/chat/v1/chat_pb.ts";
import type { Hello } from "../generated/duologue/chat/v1/frames_pb.ts";
import { MAX_BUFFERED_BYTES, MAX_SENDS_IN_FLIGHT } from "../limits.ts";
import { type EndKind, type LinkEnd, lost } from "../session/types.ts";
import type { Link, LinkHandlers, Transport } from "./transport.ts";

const PROTOCOL = "duologue.v1.proto";
/** How often a full buffer is looked at: browsers do not tell when it drains. */
const DRAIN_INTERVAL_MS = 20;

/** What is used of the browsers' `WebSocket`; that of the package `ws` has it, too. */
export interface WebSocketLike {
  binaryType: string;
  readonly protocol: string;
  readonly bufferedAmount: number;
  onopen: ((event: never) => void) | null;
  onmessage: ((event: never) => void) | null;
  onclose: ((event: never) => void) | null;
  onerror: ((event: never) => void) | null;
  send(data: Uint8Array<ArrayBuffer>): void;
  close(code?: number, reason?: string): void;
}

export type WebSocketConstructor = new (url: string, protocols: string[]) => WebSocketLike;

export class WebSocketTransport implements Transport {
  readonly #url: string;
  readonly #socket: WebSocketConstructor;

  constructor(baseUrl: string, constructor: WebSocketConstructor) {
    const url = new URL("ws", baseUrl.endsWith("/") ? baseUrl : `${baseUrl}/`);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    this.#url = url.href;
    this.#socket = constructor;
  }

  open(hello: Hello, token: string, handlers: LinkHandlers): Link {
    const socket = new this.#socket(this.#url, [PROTOCOL]);
    return new WebSocketLink(socket, { ...hello, accessToken: token }, handlers);
  }
}

class WebSocketLink implements Link {
  readonly #socket: WebSocketLike;
  readonly #handlers: LinkHandlers;
  #isOpen = false;
  #isDropped = false;
  #drain: ReturnType<typeof setInterval> | undefined;

  constructor(socket: WebSocketLike, hello: Hello, handlers: LinkHandlers) {
    this.#socket = socket;
    this.#handlers = handlers;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => this.#opened(hello);
    socket.onmessage = ({ data }: { data: unknown }) => this.#received(data);
    socket.onclose = (event: { code: number; reason: string }) => this.#end(endOf(event, this.#isOpen));
    // It says nothing; the close that follows does.
    socket.onerror = () => undefined;
  }

  get canSend(): boolean {
    return this.#isOpen && this.#socket.bufferedAmount < MAX_BUFFERED_BYTES;
  }

  send(frame: ConverseRequest): void {
    this.#socket.send(toBinary(ConverseRequestSchema, frame));
    if (!this.canSend) this.#watchDrain();
  }

  finish(): void {
    this.#socket.close(1000);
  }

  drop(): void {
    if (this.#isDropped) return;
    this.#isDropped = true;
    clearInterval(this.#drain);
    this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null;
    this.#socket.close(1000);
  }

  #opened(hello: Hello): void {
    // A proxy that knows no subprotocols would pass anything on.
    if (this.#socket.protocol !== PROTOCOL) return this.#end(lost(`the server does not speak ${PROTOCOL}`));
    this.#isOpen = true;
    this.#handlers.opened(MAX_SENDS_IN_FLIGHT);
    this.send(create(ConverseRequestSchema, { frame: { case: "hello", value: hello } }));
  }

  #received(data: unknown): void {
    if (!(data instanceof ArrayBuffer)) return this.#end(lost("the server sent what is no frame"));
    let frame: ConverseResponse;
    try {
      frame = fromBinary(ConverseResponseSchema, new Uint8Array(data));
    } catch {
      return this.#end(lost("the server sent a malformed frame"));
    }
    // A WebSocket cannot be held back; who reads bounds what waits.
    void this.#handlers.frame(frame, data.byteLength);
  }

  #end(end: LinkEnd): void {
    if (this.#isDropped) return;
    this.drop();
    this.#handlers.ended(end);
  }

  #watchDrain(): void {
    this.#drain ??= setInterval(() => {
      if (!this.canSend) return;
      clearInterval(this.#drain);
      this.#drain = undefined;
      this.#handlers.drained();
    }, DRAIN_INTERVAL_MS);
  }
}

/** What a close code means. The reason is a short constant text of the server's. */
function endOf({ code, reason }: { code: number; reason: string }, wasOpen: boolean): LinkEnd {
  if (!wasOpen) return lost("the WebSocket could not be opened");
  const cause = reason === "" ? `the WebSocket was closed with ${code}` : reason;
  return { kind: KINDS.get(code) ?? "lost", cause, retryAfterMs: RETRY_AFTER_MS.get(code) };
}

/** Those after which the client does something else than connect again. */
const KINDS = new Map<number, EndKind>([
  [1008, "refused"],
  [1009, "refused"],
  [4401, "unauthenticated"],
  [4403, "refused"],
  [4409, "superseded"],
  [4412, "history-changed"],
]);

/** Where the server asks for patience, without saying how much. */
const RETRY_AFTER_MS = new Map([
  [1013, 1_000],
  [4429, 1_000],
]);
