/** What a page shows of a conversation, all of it: read by scrolling, as a person would. */
import assert from "node:assert/strict";
import type { Page } from "playwright-core";

export interface Shown {
  readonly seq: number;
  /** Sender and message id. */
  readonly key: string;
  readonly text: string;
}

interface Look {
  rows: { seq: number; key: string; text: string }[];
  /** Messages without a place. */
  unplaced: string[];
  atTop: boolean;
  hasBeginning: boolean;
  first: string;
}

export async function shownBy(page: Page): Promise<Shown[]> {
  await toEnd(page);
  const all = new Map<number, Shown>();
  for (let steps = 0; ; steps += 1) {
    assert.ok(steps < 2_000, "the beginning of the conversation is never reached");
    await page.waitForFunction(noHoleInView);
    const look = await page.evaluate(lookAndGoUp);
    assert.deepEqual(look.unplaced, [], "everything has its place");
    for (const row of look.rows) {
      const known = all.get(row.seq);
      if (known !== undefined) assert.deepEqual(row, known, "a message stays what it was");
      all.set(row.seq, row);
    }
    if (look.hasBeginning && look.atTop) break;
    // What is above is being read or drawn.
    if (look.atTop) await page.waitForFunction((first) => (document.querySelector<HTMLElement>("[data-key]")?.dataset["key"] ?? "") !== first, look.first);
  }
  await toEnd(page);
  return [...all.values()].sort((a, b) => a.seq - b.seq);
}

async function toEnd(page: Page): Promise<void> {
  await page.locator(".scroller").focus();
  await page.keyboard.press("End");
  await page.locator(".pill-down").waitFor({ state: "detached" });
}

/** Runs in the page: what is missing there is being read, and a person would wait. */
function noHoleInView(): boolean {
  const view = document.querySelector(".scroller")?.getBoundingClientRect();
  return view !== undefined && [...document.querySelectorAll("[data-gap]")].every((hole) => {
    const { top, bottom } = hole.getBoundingClientRect();
    return bottom < view.top || top > view.bottom;
  });
}

/** Runs in the page. */
async function lookAndGoUp(): Promise<Look> {
  const scroller = document.querySelector<HTMLElement>(".scroller");
  if (scroller === null) throw new Error("no conversation is open");
  const rows = [...document.querySelectorAll<HTMLElement>("[data-key]")];
  const textOf = (element: HTMLElement): string => element.querySelector(".text")?.textContent ?? "";
  const look: Look = {
    rows: rows.filter((r) => r.dataset["seq"] !== undefined).map((r) => ({ seq: Number(r.dataset["seq"]), key: r.dataset["key"] ?? "", text: textOf(r) })),
    unplaced: rows.filter((r) => r.dataset["seq"] === undefined).map(textOf),
    atTop: scroller.scrollTop <= 0,
    hasBeginning: scroller.querySelector("li.row-note")?.textContent?.startsWith("This is the beginning") ?? false,
    first: rows[0]?.dataset["key"] ?? "",
  };
  scroller.scrollBy({ top: -scroller.clientHeight * 0.9, behavior: "instant" });
  // Two frames: the page looks where it is in the one, and draws in the other.
  for (let frames = 0; frames < 2; frames += 1) await new Promise<void>((resolve) => requestAnimationFrame(() => resolve()));
  return look;
}
