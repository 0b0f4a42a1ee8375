/**
 * WebSocket where it works, gRPC-Web where only that does: a way in that brought no
 * frame is followed by the other, and the one that brings some is kept. So a proxy
 * that stops WebSockets is noticed by gRPC-Web getting through. Where a WebSocket has
 * worked, a server or a network that is away is likelier: it has more tries then.
 */

import type { Hello } from "../generated/duologue/chat/v1/frames_pb.ts";
import { WEBSOCKET_RETRY_MS, WEBSOCKET_TRIES } from "../limits.ts";
import type { Link, LinkHandlers, Transport } from "./transport.ts";

export class AutoTransport implements Transport {
  readonly #websocket: Transport;
  readonly #grpcWeb: Transport;
  readonly #now: () => number;
  /** Tries by WebSocket, until one brings something or gRPC-Web has a turn. */
  #most = 1;
  #left = 1;
  /** When WebSocket is worth another try, although gRPC-Web works. */
  #retryAt = Infinity;

  constructor(websocket: Transport, grpcWeb: Transport, now: () => number) {
    this.#websocket = websocket;
    this.#grpcWeb = grpcWeb;
    this.#now = now;
  }

  open(hello: Hello, token: string, handlers: LinkHandlers): Link {
    if (this.#now() >= this.#retryAt) this.#left = 1;
    const usesWebSocket = this.#left > 0;
    this.#left = usesWebSocket ? this.#left - 1 : this.#most;
    this.#retryAt = Infinity;
    const way = usesWebSocket ? this.#websocket : this.#grpcWeb;
    const heard = () => {
      if (usesWebSocket) this.#most = WEBSOCKET_TRIES;
      this.#left = usesWebSocket ? this.#most : 0;
      if (!usesWebSocket && this.#retryAt === Infinity) this.#retryAt = this.#now() + WEBSOCKET_RETRY_MS;
    };
    return way.open(hello, token, {
      opened: (perConversation) => handlers.opened(perConversation),
      frame: (frame, bytes) => {
        heard();
        return handlers.frame(frame, bytes);
      },
      answer: (frame) => handlers.answer(frame),
      drained: () => handlers.drained(),
      ended: (end) => {
        // An answer of the server's, if not a frame.
        if (end.kind !== "lost") heard();
        handlers.ended(end);
      },
    });
  }
}
