/** One conversation: who it is with, its messages, and where to write. */
import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import type { UserId } from "../api.ts";
import type { Controller } from "../controller.ts";
import { newChat } from "../model/chat.ts";
import type { Outgoing, State } from "../model/types.ts";
import { presenceName } from "../model/words.ts";
import { Composer } from "./composer.tsx";
import { Icon } from "./icons.tsx";
import { Messages } from "./messages.tsx";
import { Avatar, Name } from "./parts.tsx";

interface Props {
  state: State;
  peer: UserId;
  controller: Controller;
  onBack: () => void;
}

/** Where there is a keyboard, writing can begin at once; elsewhere it would cover the screen. */
const hasKeyboard = (): boolean => window.matchMedia("(hover: hover) and (min-width: 720px)").matches;

export function ConversationView({ state, peer, controller, onBack }: Props): JSX.Element {
  const chat = state.chats.get(peer) ?? newChat(peer);
  const presence = state.presence.get(peer);
  const [revision, setRevision] = useState(0);
  const heading = useRef<HTMLHeadingElement>(null);
  const messages = useRef<Messages>(null);
  const notes = peer === state.me;

  useEffect(() => {
    if (!hasKeyboard()) heading.current?.focus();
  }, []);

  const edit = (item: Outgoing): void => {
    const draft = controller.draft(peer);
    controller.setDraft(peer, draft.trim() === "" ? item.text : `${item.text}\n${draft}`);
    controller.discard(item);
    setRevision((n) => n + 1);
  };
  const send = (text: string): void => {
    void controller.send(peer, text);
    void messages.current?.toEnd();
  };
  const onKeyDown = (event: KeyboardEvent): void => {
    if (event.key === "Escape" && !event.isComposing) onBack();
  };
  return (
    <section class="conversation" aria-labelledby="with" onKeyDown={onKeyDown}>
      <header class="bar">
        <button type="button" class="icon-button back" aria-label="Back to the list" onClick={onBack}><Icon name="back" /></button>
        <Avatar name={peer} online={presence?.online} />
        <div class="bar-text">
          <h2 id="with" tabIndex={-1} ref={heading}><Name name={peer} /></h2>
          <p class="bar-note">{notes ? "Notes to yourself" : presenceName(presence, controller.now())}</p>
        </div>
      </header>
      <Messages ref={messages} state={state} chat={chat} controller={controller} onEdit={edit} />
      <Composer
        peer={peer} draft={controller.draft(peer)} maxBytes={state.maxTextBytes} revision={revision} focus={hasKeyboard()}
        onDraft={(text) => controller.setDraft(peer, text)} onSend={send}
      />
    </section>
  );
}
