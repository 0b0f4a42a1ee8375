/**
 * WebSocket where it works, gRPC-Web where only that does: a way in that brought no
 * frame is followed by the other, and the one that brings some is kept. So a
 * network that is off changes nothing, and a proxy that stops WebSockets is
 * noticed by gRPC-Web getting through.
 */

import type { Hello } from "../generated/duologue/chat/v1/frames_pb.ts";
import { WEBSOCKET_RETRY_MS } from "../limits.ts";
import type { Link, LinkHandlers, Transport } from "./transport.ts";

export class AutoTransport implements Transport {
  readonly #websocket: Transport;
  readonly #grpcWeb: Transport;
  readonly #now: () => number;
  #usesWebSocket = true;
  /** When WebSocket is worth another try, although gRPC-Web works. */
  #retryAt = Infinity;

  constructor(websocket: Transport, grpcWeb: Transport, now: () => number) {
    this.#websocket = websocket;
    this.#grpcWeb = grpcWeb;
    this.#now = now;
  }

  open(hello: Hello, token: string, handlers: LinkHandlers): Link {
    if (this.#now() >= this.#retryAt) this.#usesWebSocket = true;
    const usesWebSocket = this.#usesWebSocket;
    // Until something comes, the next try goes the other way.
    this.#usesWebSocket = !usesWebSocket;
    this.#retryAt = Infinity;
    const way = usesWebSocket ? this.#websocket : this.#grpcWeb;
    const heard = () => {
      this.#usesWebSocket = usesWebSocket;
      if (!usesWebSocket && this.#retryAt === Infinity) this.#retryAt = this.#now() + WEBSOCKET_RETRY_MS;
    };
    return way.open(hello, token, {
      opened: (perConversation) => handlers.opened(perConversation),
      frame: (frame, bytes) => {
        heard();
        return handlers.frame(frame, bytes);
      },
      drained: () => handlers.drained(),
      ended: (end) => {
        // An answer of the server's, if not a frame.
        if (end.kind !== "lost") heard();
        handlers.ended(end);
      },
    });
  }
}
