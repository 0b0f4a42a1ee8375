/** Where a message is written. */
import type { JSX } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { UserId } from "../api.ts";
import { bytesOf } from "../model/lists.ts";
import { isolated } from "../model/words.ts";
import { Icon } from "./icons.tsx";
import { isComposing } from "./parts.tsx";

interface Props {
  peer: UserId;
  draft: string;
  maxBytes: number;
  /** Changes when the text is set from outside (a refused message to be edited). */
  revision: number;
  focus: boolean;
  onDraft: (text: string) => void;
  onSend: (text: string) => void;
}

export function Composer(props: Props): JSX.Element {
  const [text, setText] = useState(props.draft);
  const area = useRef<HTMLTextAreaElement>(null);
  const over = text.length * 3 > props.maxBytes ? bytesOf(text) - props.maxBytes : -1;
  const sendable = text.trim() !== "" && over <= 0;

  useEffect(() => {
    setText(props.draft);
    if (props.revision > 0) area.current?.focus();
  }, [props.revision]);
  useEffect(() => {
    if (props.focus) area.current?.focus();
  }, []);
  useLayoutEffect(() => grow(area.current), [text]);

  const write = (next: string): void => {
    setText(next);
    props.onDraft(next);
  };
  const send = (): void => {
    if (!sendable) return;
    props.onSend(text);
    write("");
    area.current?.focus();
  };
  const onKeyDown = (event: KeyboardEvent): void => {
    if (event.key !== "Enter" || event.shiftKey || isComposing(event)) return;
    event.preventDefault();
    send();
  };
  return (
    <form class="composer" onSubmit={(event) => { event.preventDefault(); send(); }}>
      {over > 0 && <p class="composer-problem" id="too-long" role="alert">Too long by {over} bytes.</p>}
      <div class="composer-box">
        <textarea
          ref={area} rows={1} dir="auto" value={text} placeholder="Write a message"
          aria-label={`Message to ${isolated(props.peer)}`} aria-invalid={over > 0}
          aria-describedby={over > 0 ? "too-long" : undefined}
          onInput={(event) => write(event.currentTarget.value)} onKeyDown={onKeyDown}
        />
        <button type="submit" class="send" aria-label="Send" disabled={!sendable}><Icon name="send" /></button>
      </div>
    </form>
  );
}

/** As high as its text, up to what the style sheet allows. */
function grow(area: HTMLTextAreaElement | null): void {
  if (area === null) return;
  area.style.height = "auto";
  area.style.height = `${area.scrollHeight}px`;
}
