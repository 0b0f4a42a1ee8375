/** The page of somebody signed in: lists on one side, a conversation on the other. */
import type { JSX } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { UserId } from "../api.ts";
import type { Controller } from "../controller.ts";
import { unreadTotal } from "../model/lists.ts";
import { goTo, leave, peerInAddress } from "../route.ts";
import { Connection } from "./connection.tsx";
import { ConversationView } from "./conversation.tsx";
import { Icon } from "./icons.tsx";
import { useTick } from "./parts.tsx";
import { Sidebar } from "./sidebar.tsx";

interface Props {
  controller: Controller;
  onSignOut: () => void;
}

export function Chat({ controller, onSignOut }: Props): JSX.Element {
  const [state, setState] = useState(controller.state);
  const search = useRef<HTMLInputElement>(null);
  const before = useRef<UserId | null>(null);
  const toSearch = useRef(false);
  // What is not sent for a while may be given up.
  const isSending = [...state.chats.values()].some((chat) => chat.outgoing.length > 0);
  useTick(isSending ? 5_000 : 60_000);

  // Before anything else happens: between rendering and subscribing nothing is heard.
  useLayoutEffect(() => controller.onChange(() => setState(controller.state)), [controller]);
  useEffect(() => {
    const follow = (): void => controller.open(peerInAddress());
    follow();
    window.addEventListener("popstate", follow);
    return () => window.removeEventListener("popstate", follow);
  }, [controller]);
  useEffect(() => {
    const onKey = (event: KeyboardEvent): void => {
      if (event.key.toLowerCase() !== "k" || !(event.ctrlKey || event.metaKey) || event.shiftKey || event.altKey) return;
      event.preventDefault();
      search.current?.focus();
      if (document.activeElement === search.current) return;
      // On a narrow screen the lists are another screen.
      toSearch.current = true;
      leave();
    };
    window.addEventListener("keydown", onKey);
    return () => window.removeEventListener("keydown", onKey);
  }, [controller]);
  useLayoutEffect(() => {
    if (state.open === null && before.current !== null) {
      if (toSearch.current) search.current?.focus();
      else focusLine(before.current, search.current);
    }
    toSearch.current = false;
    before.current = state.open;
  }, [state.open]);

  const unread = unreadTotal(state);
  useEffect(() => {
    document.title = unread > 0 ? `(${unread}) Duologue` : "Duologue";
  }, [unread]);

  return (
    <div class={`app${state.open === null ? "" : " has-open"}`}>
      <Connection state={state.connection} onReconnect={() => controller.client.reconnect()} onSignIn={onSignOut} />
      <main class="panes">
        <h1 class="sr">Duologue</h1>
        <Sidebar state={state} controller={controller} search={search} onOpen={(peer) => goTo(peer)} onSignOut={onSignOut} />
        {state.open === null
          ? <section class="nothing-open"><Icon name="bubbles" /><h2>No conversation is open</h2><p>Choose one, or press <kbd>Ctrl</kbd> <kbd>K</kbd> to find somebody.</p></section>
          : <ConversationView key={state.open} state={state} peer={state.open} controller={controller} onBack={leave} />}
      </main>
      <div class="sr" aria-live="polite" aria-atomic="true"><p key={state.announce.id}>{state.announce.text}</p></div>
    </div>
  );
}

/** The list is shown again: the focus is where it was left. */
function focusLine(peer: UserId, search: HTMLInputElement | null): void {
  const lines = [...document.querySelectorAll<HTMLElement>("[data-peer]")];
  (lines.find((line) => line.dataset["peer"] === peer) ?? search)?.focus();
}
