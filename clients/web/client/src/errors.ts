/** One kind of error for whatever fails. No text of a message is ever in it. */

import { Code, ConnectError } from "@connectrpc/connect";

import type { CallFailure } from "./api.ts";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "./generated/google/rpc/error_details_pb.ts";
import { toMs } from "./session/convert.ts";

interface Details {
  readonly reason?: string | undefined;
  readonly field?: string | undefined;
  readonly retryAfterMs?: number | undefined;
}

/** What every call of this package fails with. */
export class DuologueError extends Error implements CallFailure {
  override readonly name = "DuologueError";
  readonly code: string;
  declare readonly reason?: string;
  declare readonly field?: string;
  declare readonly retryAfterMs?: number;

  constructor(code: string, message: string, details: Details = {}) {
    super(message);
    this.code = code;
    const given = Object.entries(details).filter(([, value]) => value !== undefined);
    Object.assign(this, Object.fromEntries(given));
  }
}

/** The error of a call, whatever was thrown. */
export function toFailure(thrown: unknown): DuologueError {
  if (thrown instanceof DuologueError) return thrown;
  const error = ConnectError.from(thrown);
  const reason = error.findDetails(ErrorInfoSchema)[0]?.reason;
  const field = error.findDetails(BadRequestSchema)[0]?.fieldViolations[0]?.field;
  const retryAfterMs = toMs(error.findDetails(RetryInfoSchema)[0]?.retryDelay);
  return new DuologueError(codeName(error.code), error.rawMessage, { reason, field, retryAfterMs });
}

/** As in `failed_precondition`. */
function codeName(code: Code): string {
  return (Code[code] ?? "Unknown").replaceAll(/(?<=[a-z])(?=[A-Z])/g, "_").toLowerCase();
}

/** The reason of what fails because the client is closed. */
export const CLOSED = "CLOSED";

export function closedError(): DuologueError {
  return new DuologueError("cancelled", "the client is closed", { reason: CLOSED });
}
