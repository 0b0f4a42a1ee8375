/** What carries a session's frames: one interface, two ways in. */

import type { ConverseRequest, ConverseResponse } from "../generated/duologue/chat/v1/chat_pb.ts";
import type { Hello } from "../generated/duologue/chat/v1/frames_pb.ts";
import type { LinkEnd } from "../session/types.ts";

/** What a link tells; nothing after `ended` or `drop`. */
export interface LinkHandlers {
  /** It is open, and carries so many sends of one conversation at a time. */
  opened(perConversation: number): void;
  /** A frame came. The next one is fetched when the promise is resolved, where the
   * way in can be held back at all. */
  frame(frame: ConverseResponse, bytes: number): void | Promise<void>;
  /** An answer came by another way: it shows nothing of the stream. */
  answer(frame: ConverseResponse): void;
  /** `canSend` is true again. */
  drained(): void;
  ended(end: LinkEnd): void;
}

export interface Link {
  /** Whether there is room for a frame. */
  readonly canSend: boolean;
  send(frame: ConverseRequest): void;
  /** Nothing more will be sent; what is under way is answered, then it ends. */
  finish(): void;
  /** Ends it now, without a word. */
  drop(): void;
}

export interface Transport {
  /** Opens a link whose first frame is `hello`. */
  open(hello: Hello, token: string, handlers: LinkHandlers): Link;
}
