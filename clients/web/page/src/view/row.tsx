/** One row of a conversation. Text is a text node, whatever it holds. */
import type { ComponentChildren, JSX } from "preact";
import type { Seq } from "../api.ts";
import { isLocal } from "../model/chat.ts";
import type { Row } from "../model/rows.ts";
import type { Loading, Outgoing } from "../model/types.ts";
import { dayName, timeName } from "../model/words.ts";
import { MarkSign } from "./icons.tsx";

export interface RowActions {
  retry: (item: Outgoing) => void;
  discard: (item: Outgoing) => void;
  edit: (item: Outgoing) => void;
  readGap: (after: Seq, before: Seq) => void;
  readOlder: () => void;
}

interface Props {
  row: Row;
  now: Date;
  skewMs: number;
  loading: Loading;
  actions: RowActions;
}

export function RowView({ row, now, skewMs, loading, actions }: Props): JSX.Element {
  switch (row.kind) {
    case "start":
      return <li class="row-note">This is the beginning of your conversation.</li>;
    case "older":
      return <Missing loading={loading} retry={actions.readOlder} />;
    case "gap":
      return <Missing loading={loading} retry={() => actions.readGap(row.after, row.before)} gap={row} />;
    case "day":
      return <li class="row-day"><time dateTime={row.time.toISOString()}>{dayName(row.time, now)}</time></li>;
    case "unread":
      return <li class="row-unread" data-unread><span>New messages</span></li>;
    case "message": {
      const { message, own } = row;
      return (
        <li class={`row ${own ? "own" : "other"}${row.first ? " first" : ""}`} data-key={row.key} data-seq={String(row.seq)}>
          <span class="sr">{own ? "You" : <bdi>{message.sender}</bdi>}: </span>
          <Bubble text={message.content.kind === "text" ? message.content.text : null}>
            <time dateTime={message.acceptedAt.toISOString()} title={message.acceptedAt.toLocaleString()}>{timeName(message.acceptedAt)}</time>
            {row.mark !== null && <MarkSign mark={row.mark} inWords={row.newest} />}
          </Bubble>
        </li>
      );
    }
    case "outgoing":
      return <OutgoingRow row={row} now={now} skewMs={skewMs} actions={actions} />;
  }
}

function Missing(props: { loading: Loading; retry: () => void; gap?: { after: Seq; before: Seq } }): JSX.Element {
  const { gap } = props;
  return (
    <li class="row-note" data-gap={gap === undefined ? undefined : `${gap.after}:${gap.before}`}>
      {props.loading === "failed"
        ? <>Messages could not be loaded. <button type="button" class="link" onClick={props.retry}>Try again</button></>
        : "Loading messages…"}
    </li>
  );
}

/**
 * The bubble takes the direction of its text. Time and mark stand on the text's last
 * line where they fit; their own `dir` keeps them out of the guess.
 */
function Bubble({ text, children }: { text: string | null; children: ComponentChildren }): JSX.Element {
  return (
    <div class="bubble" dir="auto">
      {text === null ? <span class="text placeholder">A message this page cannot show</span> : <span class="text">{text}</span>}
      <span class="meta" dir="ltr">{children}</span>
    </div>
  );
}

/** What is not sent by then may be given up. */
const SENDING_MS = 10_000;

function OutgoingRow({ row, now, skewMs, actions }: Omit<Props, "row" | "loading"> & { row: Row & { kind: "outgoing" } }): JSX.Element {
  const { item, mark } = row;
  const { status } = item;
  const written = status.kind === "stored" ? status.acceptedAt : new Date(item.writtenAt.getTime() + skewMs);
  return (
    <li class={`row own${row.first ? " first" : ""}${mark === "failed" ? " failed" : ""}`} data-key={row.key}>
      <span class="sr">You: </span>
      <Bubble text={item.text}>
        <time dateTime={written.toISOString()}>{timeName(written)}</time>
        <MarkSign mark={mark} inWords={row.newest || mark === "failed"} />
      </Bubble>
      {status.kind === "failed" && (
        <div class="row-actions" role="group" aria-label="Not sent">
          <span dir="auto">{status.detail}</span>
          <button type="button" class="link" onClick={() => actions.retry(item)}>Try again</button>
          <button type="button" class="link" onClick={() => actions.edit(item)}>Edit</button>
          <button type="button" class="link" onClick={() => actions.discard(item)}>Delete</button>
        </div>
      )}
      {(status.kind === "waiting" || (status.kind === "sending" && !isLocal(item.messageId) && now.getTime() - written.getTime() > SENDING_MS)) && (
        <div class="row-actions" role="group" aria-label="Waiting">
          <span>{status.kind === "waiting" ? `The server asked to wait (${status.reason}).` : "Not sent yet."}</span>
          <button type="button" class="link" onClick={() => actions.discard(item)}>Give up</button>
        </div>
      )}
    </li>
  );
}
