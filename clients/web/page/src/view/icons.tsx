/** Line icons, drawn as elements; all are decoration beside a text or a label. */
import type { JSX } from "preact";
import type { Mark } from "../model/types.ts";

const paths = {
  back: "M15 5l-7 7 7 7",
  send: "M12 19V5M6 11l6-6 6 6",
  search: "M11 18a7 7 0 1 0 0-14 7 7 0 0 0 0 14zM20 20l-4-4",
  down: "M12 5v14M6 13l6 6 6-6",
  up: "M12 19V5M6 11l6-6 6 6",
  leave: "M14 4H6a1 1 0 0 0-1 1v14a1 1 0 0 0 1 1h8M10 12h10M17 9l3 3-3 3",
  sending: "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18zM12 7v5l3 2",
  waiting: "M7 4h10M7 20h10M8 4v3l4 5 4-5V4M8 20v-3l4-5 4 5v3",
  stored: "M6 12.5l4 4 8-9",
  delivered: "M2 12.5l4 4 8-9M11.5 15.5l1 1 8-9",
  read: "M2 12.5l4 4 8-9M11.5 15.5l1 1 8-9",
  failed: "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18zM12 7.5v5.5M12 16.4v.1",
  bubbles: "M4 5h11a1 1 0 0 1 1 1v7a1 1 0 0 1-1 1H8l-4 3.5V5zM19 9h1v11.5L16.500 17.500H10",
} as const;

export type IconName = keyof typeof paths;

export function Icon({ name }: { name: IconName }): JSX.Element {
  return (
    <svg class={`icon icon-${name}`} viewBox="0 0 24 24" aria-hidden="true" focusable="false">
      <path d={paths[name]} />
    </svg>
  );
}

const words: Record<Mark, string> = {
  sending: "Sending",
  waiting: "Waiting to be sent",
  stored: "Sent",
  delivered: "Delivered",
  read: "Read",
  failed: "Not sent",
};

/** How far an own message has come; the newest one says so in words. */
export function MarkSign({ mark, inWords }: { mark: Mark; inWords: boolean }): JSX.Element {
  return (
    <span class={`mark mark-${mark}`} title={words[mark]}>
      <span class={inWords ? "mark-word" : "sr"}>{words[mark]}</span>
      <Icon name={mark} />
    </span>
  );
}
