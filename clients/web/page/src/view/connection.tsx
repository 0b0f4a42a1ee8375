/** The line that says what the connection is doing, while it is not simply there. */
import type { JSX } from "preact";
import type { ConnectionState } from "../api.ts";
import { noticeOf } from "../model/words.ts";
import { useTick } from "./parts.tsx";

interface Props {
  state: ConnectionState;
  onReconnect: () => void;
  onSignIn: () => void;
}

export function Connection({ state, onReconnect, onSignIn }: Props): JSX.Element {
  const notice = noticeOf(state);
  // The region stays, so that a screen reader notices what comes into it. The seconds
  // are outside of it: they would be read out one by one.
  return (
    <div class={`connection ${notice === null ? "connection-none" : `connection-${notice.tone}`}`}>
      <span role="status">{notice?.text}</span>
      {notice?.retryAt !== undefined && <Countdown until={notice.retryAt} />}
      {notice?.action !== undefined && (
        <button type="button" class="link" onClick={notice.action.what === "sign-in" ? onSignIn : onReconnect}>
          {notice.action.label}
        </button>
      )}
    </div>
  );
}

function Countdown({ until }: { until: number }): JSX.Element {
  useTick(500);
  const seconds = Math.max(0, Math.ceil((until - Date.now()) / 1000));
  return <span aria-hidden="true">Trying again in {seconds} s.</span>;
}
