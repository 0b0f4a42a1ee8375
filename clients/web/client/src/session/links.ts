/** When there is a link, and what follows from its end. */

import type { Core } from "./core.ts";
import type { At, LinkEnd } from "./types.ts";

/** A new link is wanted. */
export function connect(core: Core, at: At): void {
  const next = core.connectNumber + 1;
  core.connectNumber = core.trustsClock ? Math.max(Math.floor(at.wall), next) : next;
  core.connectMark = core.saves.need();
  core.link += 1;
  core.setPhase({ kind: "opening" });
}

/** The wanted link has ended, or could not be opened. */
export function ended(core: Core, end: LinkEnd, at: At): void {
  const wasWelcomed = core.isWelcomed;
  core.leaveLink();
  switch (end.kind) {
    case "superseded":
      return core.setPhase({ kind: "superseded" });
    case "no-other-token":
      return core.stop("unauthenticated", core.refusal === "" ? end.cause : core.refusal);
    case "refused":
      if (!saysLess(core, wasWelcomed)) return core.stop("refused", end.cause);
      break;
    case "history-changed":
      core.forgetHistory();
      break;
    case "unauthenticated":
      core.freshToken = true;
      core.refusal = end.cause;
      break;
    case "lost":
      break;
  }
  core.wait(end, at);
}

/**
 * The server refused what `Hello` says: the next says less. The token can be done
 * without: positions find everything, only slower. And a connect number from a
 * clock that is more than a day ahead was never taken, so that one above the last
 * that was will do. Returns whether there was anything to leave out.
 */
function saysLess(core: Core, wasWelcomed: boolean): boolean {
  const hadToken = core.token !== "";
  if (hadToken) core.forgetToken();
  if (wasWelcomed || !core.trustsClock) return hadToken;
  core.trustsClock = false;
  core.connectNumber = core.sureNumber;
  return true;
}
