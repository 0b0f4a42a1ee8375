/** Which way in a client takes. */

import type { ClientOptions } from "../api.ts";
import type { Environment } from "../environment.ts";
import { DuologueError } from "../errors.ts";
import { AutoTransport } from "./auto.ts";
import { type ChatClient, GrpcWebTransport } from "./grpcWeb.ts";
import type { Transport } from "./transport.ts";
import { type WebSocketConstructor, WebSocketTransport } from "./websocket.ts";

/** What may be given instead of the world's. */
export interface TransportParts {
  readonly transport?: Transport;
  readonly chat?: ChatClient;
}

export function chooseTransport(
  { url, transport = "auto", webSocket }: ClientOptions,
  chat: ChatClient,
  environment: Environment,
  parts: TransportParts,
): Transport {
  if (parts.transport) return parts.transport;
  const constructor = (webSocket as WebSocketConstructor | undefined) ?? globalThis.WebSocket;
  const grpcWeb = new GrpcWebTransport(chat);
  if (transport === "grpc-web") return grpcWeb;
  if (constructor !== undefined) {
    const websocket = new WebSocketTransport(url, constructor as WebSocketConstructor);
    return transport === "websocket" ? websocket : new AutoTransport(websocket, grpcWeb, () => environment.now());
  }
  if (transport === "auto") return grpcWeb;
  throw new DuologueError("unimplemented", "there is no WebSocket here: give one as options.webSocket");
}
