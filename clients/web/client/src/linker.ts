/** Keeps the link that the session wants: opens, reads, writes and drops it. */

import type { Environment } from "./environment.ts";
import { DuologueError } from "./errors.ts";
import type { ConverseResponse } from "./generated/duologue/chat/v1/chat_pb.ts";
import { MAX_HELD_BYTES, MAX_HELD_FRAMES, OPEN_TIMEOUT_MS } from "./limits.ts";
import type { Session } from "./session.ts";
import { type At, type LinkEnd, lost } from "./session/types.ts";
import { SAME_AGAIN, type Tokens } from "./tokens.ts";
import type { Link, LinkHandlers, Transport } from "./transport/transport.ts";

interface Held {
  readonly frame: ConverseResponse;
  readonly isAnswer: boolean;
  readonly bytes: number;
  /** Lets the next one come. */
  readonly taken: () => void;
}

interface Parts {
  readonly session: Session;
  readonly transport: Transport;
  readonly tokens: Tokens;
  readonly environment: Environment;
}

export class Linker {
  readonly #parts: Parts;
  readonly #at: () => At;
  readonly #schedule: () => void;
  /** The number of the link that is there, or is being opened. */
  #number: number | undefined;
  #link: Link | undefined;
  #isOpen = false;
  #isFinished = false;
  #held: Held[] = [];
  #heldBytes = 0;
  /** How it ended, told after the frames that came before. */
  #end: LinkEnd | undefined;
  #stopTimer: () => void = () => undefined;

  constructor(parts: Parts, at: () => At, schedule: () => void) {
    this.#parts = parts;
    this.#at = at;
    this.#schedule = schedule;
  }

  get holdsFrames(): boolean {
    return this.#held.length > 0;
  }

  /** Drops a link that is not the wanted one, and opens the one that is. */
  follow(mayOpen: boolean): void {
    const wanted = this.#parts.session.wantedLink;
    if (this.#number === wanted) return;
    this.drop();
    if (wanted !== undefined && mayOpen) void this.#open(wanted);
  }

  /** Gives the session one frame, or the end, that waits. Returns whether there was one. */
  readOne(at: At): boolean {
    const { session } = this.#parts;
    if (this.#number !== session.wantedLink) return false;
    const held = this.#held.shift();
    if (held !== undefined) {
      this.#heldBytes -= held.bytes;
      if (held.isAnswer) session.answer(held.frame, at);
      else session.frame(held.frame, at);
      held.taken();
      return true;
    }
    if (this.#end === undefined) return false;
    const end = this.#end;
    this.#forget();
    session.ended(end, at);
    return true;
  }

  sendFrames(at: At): void {
    const { session } = this.#parts;
    while (this.#isOpen && !this.#isFinished && this.#link?.canSend) {
      const frame = session.nextFrame(at.now);
      if (frame === undefined) return;
      this.#link.send(frame);
    }
  }

  /** Nothing more will be sent. Returns whether there is an end to wait for. */
  finish(): boolean {
    if (this.#link === undefined || !this.#isOpen) return false;
    if (!this.#isFinished) this.#link.finish();
    this.#isFinished = true;
    return true;
  }

  drop(): void {
    this.#link?.drop();
    this.#forget();
  }

  #forget(): void {
    this.#stopTimer();
    this.#number = undefined;
    this.#link = undefined;
    this.#isOpen = false;
    this.#isFinished = false;
    this.#end = undefined;
    this.#heldBytes = 0;
    for (const { taken } of this.#held.splice(0)) taken();
  }

  async #open(number: number): Promise<void> {
    const { session, tokens, transport, environment } = this.#parts;
    this.#number = number;
    const late = () => this.#ended(number, lost("connecting takes too long"));
    this.#stopTimer = environment.after(OPEN_TIMEOUT_MS, late);
    try {
      const token = await tokens.forLink(session.needsFreshToken);
      if (this.#number !== number || this.#end !== undefined) return;
      this.#link = transport.open(session.hello(), token, this.#handlers(number, token));
    } catch (error) {
      this.#ended(number, noToken(error));
    }
  }

  #handlers(number: number, token: string): LinkHandlers {
    const { session, tokens } = this.#parts;
    const isThis = () => this.#number === number && this.#end === undefined;
    return {
      opened: (perConversation) => {
        if (!isThis()) return;
        this.#stopTimer();
        this.#isOpen = true;
        session.opened(perConversation, this.#at());
        this.#schedule();
      },
      frame: (frame, bytes) => {
        if (!isThis()) return;
        if (frame.frame.case === "welcome" || isRefusal(frame)) tokens.judged(token);
        return this.#hold(number, frame, bytes, false);
      },
      answer: (frame) => {
        if (isThis()) void this.#hold(number, frame, 0, true);
      },
      drained: () => this.#schedule(),
      ended: (end) => {
        if (!isThis()) return;
        if (end.kind === "unauthenticated") tokens.judged(token);
        this.#ended(number, end);
      },
    };
  }

  #hold(number: number, frame: ConverseResponse, bytes: number, isAnswer: boolean): Promise<void> {
    this.#heldBytes += bytes;
    const held = new Promise<void>((taken) => this.#held.push({ frame, isAnswer, bytes, taken }));
    // What cannot be held back and is not taken is fetched again later.
    if (this.#held.length > MAX_HELD_FRAMES || this.#heldBytes > MAX_HELD_BYTES) {
      this.#ended(number, lost("events are taken too slowly"));
    }
    this.#schedule();
    return held;
  }

  #ended(number: number, end: LinkEnd): void {
    if (this.#number !== number || this.#end !== undefined) return;
    this.#stopTimer();
    this.#link?.drop();
    this.#isOpen = false;
    this.#end = end;
    this.#schedule();
  }
}

function isRefusal({ frame }: ConverseResponse): boolean {
  const unauthenticated = 3;
  return frame.case === "goodbye" && frame.value.reason === unauthenticated;
}

function noToken(error: unknown): LinkEnd {
  const cause = error instanceof Error ? error.message : "the link could not be opened";
  const isSame = error instanceof DuologueError && error.reason === SAME_AGAIN;
  return isSame ? { kind: "no-other-token", cause } : lost(cause);
}
