/** The lists: conversations, people, and what a search finds in both. */
import type { JSX, RefObject } from "preact";
import { useEffect, useState } from "preact/hooks";
import type { UserId } from "../api.ts";
import type { Controller } from "../controller.ts";
import { conversationsOf, find, onlineCount, peopleOf } from "../model/lists.ts";
import type { State } from "../model/types.ts";
import { Icon } from "./icons.tsx";
import { ConversationItem, FreshItem, PersonItem } from "./items.tsx";
import { Avatar, isComposing, moveInList, Name } from "./parts.tsx";

type Tab = "chats" | "people";

interface Props {
  state: State;
  controller: Controller;
  search: RefObject<HTMLInputElement>;
  onOpen: (peer: UserId) => void;
  onSignOut: () => void;
}

/** While people are shown, who is online is asked for again this often: strangers' coming is not told. */
const PEOPLE_EVERY_MS = 20_000;

export function Sidebar({ state, controller, search, onOpen, onSignOut }: Props): JSX.Element {
  const [typed, setTyped] = useState("");
  const [chosen, setTab] = useState<Tab | null>(null);
  const tab = chosen ?? (isEmpty(state) ? "people" : "chats");
  const showsPeople = tab === "people" || typed !== "";
  useEffect(() => {
    if (!showsPeople) return;
    void controller.readOnline();
    const timer = setInterval(() => void controller.readOnline(), PEOPLE_EVERY_MS);
    return () => clearInterval(timer);
  }, [showsPeople]);

  const open = (peer: UserId): void => {
    setTyped("");
    onOpen(peer);
  };
  return (
    <nav class="sidebar" aria-label="Conversations and people">
      <header class="bar">
        <Avatar name={state.me} online={state.connection.kind === "connected"} />
        <div class="bar-text"><p class="me"><Name name={state.me} /></p></div>
        <button type="button" class="icon-button" aria-label="Sign out" title="Sign out" onClick={onSignOut}><Icon name="leave" /></button>
      </header>
      <SearchBox state={state} typed={typed} input={search} onType={setTyped} onOpen={open} />
      {typed === ""
        ? <Tabs state={state} tab={tab} onTab={setTab} />
        : null}
      {typed !== ""
        ? <Results state={state} controller={controller} typed={typed} onOpen={open} />
        : tab === "chats"
          ? <Conversations state={state} controller={controller} onOpen={open} />
          : <People state={state} controller={controller} onOpen={open} />}
      <Durability controller={controller} />
    </nav>
  );
}

interface SearchProps {
  state: State;
  typed: string;
  input: RefObject<HTMLInputElement>;
  onType: (typed: string) => void;
  onOpen: (peer: UserId) => void;
}

function SearchBox({ state, typed, input, onType, onOpen }: SearchProps): JSX.Element {
  const onKeyDown = (event: KeyboardEvent): void => {
    if (event.key === "Escape" && typed !== "") {
      event.stopPropagation();
      onType("");
    } else if (event.key === "ArrowDown") {
      event.preventDefault();
      document.querySelector<HTMLElement>(".list [data-item]")?.focus();
    } else if (event.key === "Enter" && !isComposing(event)) {
      event.preventDefault();
      const { people, fresh } = find(state, typed);
      const first = people[0]?.user ?? fresh;
      if (typed.trim() !== "" && first !== null) onOpen(first);
    }
  };
  return (
    <div class="search">
      <Icon name="search" />
      <input
        ref={input} type="search" dir="auto" value={typed} placeholder="Find or start a chat" aria-label="Find or start a chat"
        aria-keyshortcuts="Control+K Meta+K" autocomplete="off" autocapitalize="off" spellcheck={false} maxLength={64}
        onInput={(event) => onType(event.currentTarget.value)} onKeyDown={onKeyDown}
      />
    </div>
  );
}

function Tabs({ state, tab, onTab }: { state: State; tab: Tab; onTab: (tab: Tab) => void }): JSX.Element {
  const online = onlineCount(state);
  const button = (name: Tab, label: JSX.Element): JSX.Element => (
    <button
      type="button" role="tab" id={`tab-${name}`} aria-selected={tab === name} aria-controls="lists" data-item
      tabIndex={tab === name ? 0 : -1} onClick={() => onTab(name)}
    >{label}</button>
  );
  const onKeyDown = (event: KeyboardEvent): void => {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    const next = tab === "chats" ? "people" : "chats";
    onTab(next);
    document.getElementById(`tab-${next}`)?.focus();
  };
  return (
    <div class="tabs" role="tablist" aria-label="Lists" onKeyDown={onKeyDown}>
      {button("chats", <>Chats</>)}
      {button("people", <>People{online > 0 && <span class="tab-count">{online} online</span>}</>)}
    </div>
  );
}

interface ListProps {
  state: State;
  controller: Controller;
  onOpen: (peer: UserId) => void;
}

function Conversations({ state, controller, onOpen }: ListProps): JSX.Element {
  const chats = conversationsOf(state);
  const current = chats.some((chat) => chat.peer === state.open) ? state.open : chats[0]?.peer;
  const onScroll = (event: Event): void => {
    const list = event.currentTarget;
    if (!(list instanceof HTMLElement)) return;
    if (list.scrollHeight - list.scrollTop - list.clientHeight < 600) void controller.moreConversations();
  };
  return (
    <div class="list" id="lists" role="tabpanel" aria-labelledby="tab-chats" onScroll={onScroll}>
      <ul role="list" onKeyDown={moveInList}>
        {chats.map((chat) => (
          <ConversationItem key={chat.peer} state={state} chat={chat} now={controller.now()} draft={controller.draft(chat.peer)} focusable={chat.peer === current} onOpen={onOpen} />
        ))}
      </ul>
      {chats.length === 0 && <ListNote state={state} controller={controller} />}
      {chats.length > 0 && state.list === "failed" && <ListFailed controller={controller} />}
      {state.list === "idle" && state.listNext !== undefined && (
        <p class="list-note"><button type="button" class="link" onClick={() => void controller.moreConversations()}>More</button></p>
      )}
    </div>
  );
}

/** Nothing is there, and no further page may hold something. */
function isEmpty(state: State): boolean {
  return state.listLoaded && state.listNext === undefined && conversationsOf(state).length === 0;
}

function ListNote({ state, controller }: { state: State; controller: Controller }): JSX.Element {
  if (state.list === "failed") return <ListFailed controller={controller} />;
  return <p class="list-note">{isEmpty(state) ? "No conversations yet. Find somebody under People, or type a name above." : "Loading…"}</p>;
}

function ListFailed({ controller }: { controller: Controller }): JSX.Element {
  return (
    <p class="list-note">
      Conversations could not be loaded. <button type="button" class="link" onClick={() => controller.refresh()}>Try again</button>
    </p>
  );
}

function People({ state, controller, onOpen }: ListProps): JSX.Element {
  const people = peopleOf(state);
  return (
    <div class="list" id="lists" role="tabpanel" aria-labelledby="tab-people">
      <ul role="list" onKeyDown={moveInList}>
        {people.map((person, i) => (
          <PersonItem key={person.user} person={person} now={controller.now()} current={person.user === state.open} focusable={i === 0} onOpen={onOpen} />
        ))}
      </ul>
      {people.length === 0 && <p class="list-note">Nobody else is here now. Type a name above to write to them; they will have it when they come.</p>}
    </div>
  );
}

function Results({ state, controller, typed, onOpen }: ListProps & { typed: string }): JSX.Element {
  const { people, fresh, problem } = find(state, typed);
  const note = problem ?? (people.length === 0 ? "Nobody by that name is known here." : "");
  return (
    <div class="list" id="lists">
      <ul role="list" aria-label="Found" onKeyDown={moveInList}>
        {people.slice(0, 50).map((person, i) => (
          <PersonItem key={person.user} person={person} now={controller.now()} current={person.user === state.open} focusable={i === 0} onOpen={onOpen} />
        ))}
        {fresh !== null && <FreshItem name={fresh} focusable={people.length === 0} onOpen={onOpen} />}
      </ul>
      <p class="list-note" role="status">{people.length === 0 || problem !== null ? note : ""}</p>
    </div>
  );
}

function Durability({ controller }: { controller: Controller }): JSX.Element | null {
  const { durability } = controller.client;
  if (durability.durable) return null;
  return <p class="durability" title={durability.reason}>This browser keeps nothing: messages not yet sent are lost when the page closes.</p>;
}
