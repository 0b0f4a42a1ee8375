/** Small parts that several views use. */
import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { hueOf, initials } from "../model/lists.ts";

/** A name as it is: its direction ends with it, and it never takes more than its line. */
export function Name({ name }: { name: string }): JSX.Element {
  return <bdi class="name" dir="auto">{name}</bdi>;
}

export function Avatar({ name, online }: { name: string; online?: boolean | undefined }): JSX.Element {
  return (
    <span class={`avatar hue-${hueOf(name, 6)}`} aria-hidden="true">
      <span class="avatar-letters">{initials(name)}</span>
      {online === true && <span class="dot" />}
    </span>
  );
}

/** Draws again at least this often: clocks and countdowns go on by themselves. */
export function useTick(everyMs: number): void {
  const [, tick] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => tick((n) => n + 1), everyMs);
    return () => clearInterval(timer);
  }, [everyMs]);
}

/** Arrows, Home and End move the focus between the items of a list. */
export function moveInList(event: KeyboardEvent): void {
  const list = event.currentTarget;
  if (!(list instanceof HTMLElement)) return;
  const items = [...list.querySelectorAll<HTMLElement>("[data-item]")];
  const at = items.findIndex((item) => item === document.activeElement);
  const to = target(event.key, at, items.length);
  if (to === null) return;
  event.preventDefault();
  items[to]?.focus();
}

function target(key: string, at: number, count: number): number | null {
  switch (key) {
    case "ArrowDown":
      return Math.min(count - 1, at + 1);
    case "ArrowUp":
      return Math.max(0, at - 1);
    case "Home":
      return 0;
    case "End":
      return count - 1;
    default:
      return null;
  }
}

/** Whether a key belongs to an input method. Safari sends the last one after its end. */
export function isComposing(event: KeyboardEvent): boolean {
  return event.isComposing || event.keyCode === 229;
}
