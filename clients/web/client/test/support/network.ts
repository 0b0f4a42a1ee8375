/** A way in to the model server, whose answers come a moment later, and its faults. */

import { create } from "@bufbuild/protobuf";

import { ConverseRequestSchema, type ConverseResponse } from "../../src/generated/duologue/chat/v1/chat_pb.ts";
import { GoodbyeReason } from "../../src/generated/duologue/chat/v1/frames_pb.ts";
import { type LinkEnd, lost } from "../../src/session/types.ts";
import type { ChatClient } from "../../src/transport/grpcWeb.ts";
import type { Link, LinkHandlers, Transport } from "../../src/transport/transport.ts";
import { down, type Server } from "./server.ts";

export class Network implements Transport {
  readonly server: Server;
  isDown = false;
  /** Requests still reach the server, but nothing comes back. */
  losesAnswers = false;
  opened = 0;
  readonly tokens: string[] = [];
  #current: { readonly handlers: LinkHandlers; isOver: boolean } | undefined;

  constructor(server: Server) {
    this.server = server;
  }

  open: Transport["open"] = (value, token, handlers): Link => {
    const link = { handlers, isOver: false };
    const end = (how: LinkEnd) => {
      if (link.isOver) return;
      link.isOver = true;
      handlers.ended(how);
    };
    this.tokens.push(token);
    const send = (frame: Parameters<Link["send"]>[0]) => {
      if (link.isOver || this.isDown) return;
      this.#tell(link, this.server.read(frame, "store"));
    };
    setImmediate(() => {
      if (link.isOver) return;
      if (this.isDown) return end(lost("the network is down"));
      const before = this.#current;
      this.#current = link;
      if (before) this.#tell(before, [down({ case: "goodbye", value: { reason: GoodbyeReason.SUPERSEDED } })]);
      this.opened += 1;
      handlers.opened(256);
      send(create(ConverseRequestSchema, { frame: { case: "hello", value } }));
    });
    return { canSend: true, send, finish: () => setImmediate(() => end(lost("finished"))), drop: () => (link.isOver = true) };
  };

  /** The connection breaks. */
  cut(): void {
    const link = this.#current;
    if (link === undefined || link.isOver) return;
    link.isOver = true;
    this.server.hangUp();
    link.handlers.ended(lost("cut"));
  }

  /** Something of another device. */
  push(frames: readonly ConverseResponse[]): void {
    if (this.#current) this.#tell(this.#current, frames);
  }

  /** What is used of the calls. */
  get chat(): ChatClient {
    const listMessages = ({ peer, afterSeq }: { peer: string; afterSeq?: bigint }) =>
      Promise.resolve(this.server.page(peer, afterSeq ?? 0n));
    return { listMessages } as unknown as ChatClient;
  }

  #tell(link: { readonly handlers: LinkHandlers; isOver: boolean }, frames: readonly ConverseResponse[]): void {
    setImmediate(() => {
      if (this.losesAnswers) return;
      for (const frame of frames) if (!link.isOver) void link.handlers.frame(frame, 10);
    });
  }
}

/** The way in of one tab: what is frozen or dead neither hears nor says anything. */
export function throughTab(network: Network, tab: { run(task: () => void): void; readonly isAlive: boolean }): Transport {
  return {
    open: (hello, token, handlers) => {
      const link = network.open(hello, token, {
        opened: (count) => tab.run(() => handlers.opened(count)),
        frame: (frame, bytes) => tab.run(() => void handlers.frame(frame, bytes)),
        answer: (frame) => tab.run(() => handlers.answer(frame)),
        drained: () => tab.run(() => handlers.drained()),
        ended: (end) => tab.run(() => handlers.ended(end)),
      });
      return {
        canSend: true,
        send: (frame) => tab.isAlive && link.send(frame),
        finish: () => link.finish(),
        drop: () => link.drop(),
      };
    },
  };
}
