/** One line of a list. */
import type { JSX } from "preact";
import type { Presence, UserId } from "../api.ts";
import { markOf, markOfOutgoing } from "../model/chat.ts";
import type { Chat, State } from "../model/types.ts";
import { presenceName, preview, shortTime } from "../model/words.ts";
import { MarkSign } from "./icons.tsx";
import { Avatar, Name } from "./parts.tsx";

interface ConversationProps {
  state: State;
  chat: Chat;
  now: Date;
  draft: string;
  focusable: boolean;
  onOpen: (peer: UserId) => void;
}

export function ConversationItem({ state, chat, now, draft, focusable, onOpen }: ConversationProps): JSX.Element {
  const current = state.open === chat.peer;
  const online = state.presence.get(chat.peer)?.online;
  return (
    <li>
      <button
        type="button" class={`item${chat.unread > 0 ? " unread" : ""}`} data-item data-peer={chat.peer} tabIndex={focusable ? 0 : -1}
        aria-current={current ? "true" : undefined} onClick={() => onOpen(chat.peer)}
      >
        <Avatar name={chat.peer} online={online} />
        <span class="item-top">
          <Name name={chat.peer} />
          {online === true && <span class="sr">, online</span>}
          {chat.last !== null && <time class="item-time" dateTime={chat.last.acceptedAt.toISOString()}>{shortTime(chat.last.acceptedAt, now)}</time>}
        </span>
        <span class="item-bottom">
          <LastLine state={state} chat={chat} draft={current ? "" : draft} />
          {chat.unread > 0 && <span class="badge"><span>{chat.unread > 999 ? "999+" : chat.unread}</span><span class="sr"> unread</span></span>}
        </span>
      </button>
    </li>
  );
}

function LastLine({ state, chat, draft }: { state: State; chat: Chat; draft: string }): JSX.Element {
  if (draft !== "") return <span class="item-last"><span class="draft">Draft: </span><bdi dir="auto">{draft.slice(0, 200)}</bdi></span>;
  const waiting = chat.outgoing[chat.outgoing.length - 1];
  if (waiting !== undefined) {
    return <><MarkSign mark={markOfOutgoing(waiting)} inWords={false} /><span class="item-last"><bdi dir="auto">{waiting.text.slice(0, 200)}</bdi></span></>;
  }
  const { last } = chat;
  if (last === null) return <span class="item-last" />;
  return (
    <>
      {last.sender === state.me && <MarkSign mark={markOf(chat, state.me, last.seq)} inWords={false} />}
      <span class="item-last"><bdi dir="auto">{preview(last)}</bdi></span>
    </>
  );
}

interface PersonProps {
  person: Presence;
  now: Date;
  current: boolean;
  focusable: boolean;
  onOpen: (peer: UserId) => void;
}

export function PersonItem({ person, now, current, focusable, onOpen }: PersonProps): JSX.Element {
  return (
    <li>
      <button
        type="button" class="item" data-item data-peer={person.user} tabIndex={focusable ? 0 : -1}
        aria-current={current ? "true" : undefined} onClick={() => onOpen(person.user)}
      >
        <Avatar name={person.user} online={person.online} />
        <span class="item-top"><Name name={person.user} /></span>
        <span class="item-bottom"><span class="item-last">{presenceName(person, now)}</span></span>
      </button>
    </li>
  );
}

export function FreshItem({ name, focusable, onOpen }: { name: UserId; focusable: boolean; onOpen: (peer: UserId) => void }): JSX.Element {
  return (
    <li>
      <button type="button" class="item" data-item tabIndex={focusable ? 0 : -1} onClick={() => onOpen(name)}>
        <Avatar name={name} />
        <span class="item-top"><span class="item-start">Start a chat with</span></span>
        <span class="item-bottom"><Name name={name} /></span>
      </button>
    </li>
  );
}
