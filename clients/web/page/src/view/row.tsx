/** One row of a conversation. Text is a text node, whatever it holds. */
import type { JSX } from "preact";
import type { Seq } from "../api.ts";
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
          <div class="bubble">
            <span class="sr">{own ? "You" : <bdi>{message.sender}</bdi>}: </span>
            {message.content.kind === "text"
              ? <p class="text" dir="auto">{message.content.text}</p>
              : <p class="text placeholder">A message this page cannot show</p>}
            <span class="meta">
              <time dateTime={message.acceptedAt.toISOString()} title={message.acceptedAt.toLocaleString()}>{timeName(message.acceptedAt)}</time>
              {row.mark !== null && <MarkSign mark={row.mark} inWords={row.newest} />}
            </span>
          </div>
        </li>
      );
    }
    case "outgoing":
      return <OutgoingRow row={row} skewMs={skewMs} actions={actions} />;
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

function OutgoingRow({ row, skewMs, actions }: { row: Row & { kind: "outgoing" }; skewMs: number; actions: RowActions }): JSX.Element {
  const { item, mark } = row;
  const written = item.status.kind === "stored" ? item.status.acceptedAt : new Date(item.writtenAt.getTime() + skewMs);
  return (
    <li class={`row own${row.first ? " first" : ""}${mark === "failed" ? " failed" : ""}`} data-key={row.key}>
      <div class="bubble">
        <span class="sr">You: </span>
        <p class="text" dir="auto">{item.text}</p>
        <span class="meta">
          <time dateTime={written.toISOString()}>{timeName(written)}</time>
          <MarkSign mark={mark} inWords={row.newest || mark === "failed"} />
        </span>
      </div>
      {item.status.kind === "failed" && (
        <div class="row-actions" role="group" aria-label="Not sent">
          <span dir="auto">{item.status.detail}</span>
          <button type="button" class="link" onClick={() => actions.retry(item)}>Try again</button>
          <button type="button" class="link" onClick={() => actions.edit(item)}>Edit</button>
          <button type="button" class="link" onClick={() => actions.discard(item)}>Delete</button>
        </div>
      )}
      {item.status.kind === "waiting" && (
        <div class="row-actions" role="group" aria-label="Waiting">
          <span>The server asked to wait ({item.status.reason}).</span>
          <button type="button" class="link" onClick={() => actions.discard(item)}>Give up</button>
        </div>
      )}
    </li>
  );
}
