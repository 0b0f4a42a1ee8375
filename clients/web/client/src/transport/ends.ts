/** What the status of a stream means for the session. */

import type { DuologueError } from "../errors.ts";
import type { EndKind, LinkEnd } from "../session/types.ts";

export function endOf(failure: DuologueError): LinkEnd {
  const { retryAfterMs } = failure;
  return { kind: kindOf(failure), cause: `${failure.code}: ${failure.message}`, retryAfterMs };
}

function kindOf({ code, reason }: DuologueError): EndKind {
  switch (code) {
    // A proxy may drop the reason; the contract has one usual cause of each.
    case "aborted":
      return reason === undefined || reason === "SUPERSEDED" ? "superseded" : "lost";
    case "unauthenticated":
      return "unauthenticated";
    case "failed_precondition":
      return "history-changed";
    // Without a reason it is not the server's: a proxy's, or of what could not be read.
    case "invalid_argument":
      return reason === undefined ? "lost" : "refused";
    default:
      return "lost";
  }
}
