/** The application's source of tokens, and what is known of those that it gave. */

import type { ClientOptions } from "./api.ts";
import type { Environment } from "./environment.ts";
import { DuologueError } from "./errors.ts";
import { OPEN_TIMEOUT_MS } from "./limits.ts";

/** The source gave the refused one again. */
export const SAME_AGAIN = "SAME_TOKEN_AGAIN";

export class Tokens {
  readonly #source: ClientOptions["token"];
  readonly #environment: Environment;
  #last: string | undefined;
  /** The last one with which the server has opened a link, or refused one. One with
   * which no server was reached is neither good nor bad. */
  #judged: string | undefined;

  constructor(source: ClientOptions["token"], environment: Environment) {
    this.#source = source;
    this.#environment = environment;
  }

  /** The last token, or a first one. */
  async cached(): Promise<string> {
    return this.#last ?? (await this.ask(undefined));
  }

  /** A token from the source, other than one that was refused. */
  async ask(refused: string | undefined): Promise<string> {
    let token: string;
    let stop: () => void = () => undefined;
    const late = new Promise<never>((_, reject) => {
      stop = this.#environment.after(OPEN_TIMEOUT_MS, () => reject(new Error("its source does not answer")));
    });
    try {
      token = await Promise.race([this.#source({ refused: refused !== undefined }), late]);
    } catch (cause) {
      const why = cause instanceof Error ? cause.message : "its source failed";
      throw new DuologueError("unauthenticated", `no token: ${why}`, { reason: "NO_TOKEN" });
    } finally {
      stop();
    }
    if (token === refused) {
      throw new DuologueError("unauthenticated", "the token was refused, and its source gave it again", {
        reason: SAME_AGAIN,
      });
    }
    this.#last = token;
    return token;
  }

  /**
   * A token for a link. `fresh`: that of the last link was refused. It may have been
   * replaced since then.
   */
  async forLink(fresh: boolean): Promise<string> {
    const isLast = this.#judged === this.#last;
    return this.ask(fresh && isLast ? this.#judged : undefined);
  }

  /** The server has opened a link with this token, or refused it. */
  judged(token: string): void {
    this.#judged = token;
  }
}
