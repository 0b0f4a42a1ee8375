import assert from "node:assert/strict";
import { test } from "node:test";
import type { Page } from "playwright-core";
import { eventually } from "../../page/test/support/eventually.ts";
import { newContext } from "../support/browser.ts";
import { assertOneTruth } from "../support/checker.ts";
import { person, sendAll } from "../support/history.ts";
import { enter, placed, settled } from "../support/page.ts";
import { BOUNDED, numbered, stage } from "../support/stage.ts";

const here = stage();

interface Scrolled {
  steps: number;
  /** By how many pixels the first message in view has moved beside what was scrolled. */
  worstJump: number;
  /** Milliseconds between frames while scrolling. */
  frames: number[];
  elements: number;
}

/** Runs in the page: up to the beginning, by steps of a wheel, one a frame. */
async function scrollToBeginning(): Promise<Scrolled> {
  const scroller = document.querySelector<HTMLElement>(".scroller");
  if (scroller === null) throw new Error("no conversation is open");
  const frame = () => new Promise<number>((resolve) => requestAnimationFrame(resolve));
  const edge = scroller.getBoundingClientRect().top;
  const firstInView = () => [...document.querySelectorAll<HTMLElement>("[data-seq]")].find((row) => row.getBoundingClientRect().bottom > edge);
  const topOf = (seq: string) => document.querySelector(`[data-seq="${seq}"]`)?.getBoundingClientRect().top;
  const result: Scrolled = { steps: 0, worstJump: 0, frames: [], elements: 0 };
  const begun = () => document.querySelector('[data-seq="1"]') !== null && scroller.scrollTop <= 0;
  // What is missing comes before one can scroll over it.
  const atHole = () => [...document.querySelectorAll("[data-gap]")].some((hole) => hole.getBoundingClientRect().bottom > edge);
  for (let idle = 0, last = await frame(); !begun() && idle < 1_000;) {
    if (!atHole()) scroller.scrollBy({ top: -240, behavior: "instant" });
    const row = firstInView();
    const seq = row?.dataset["seq"] ?? "";
    const before = row?.getBoundingClientRect().top ?? 0;
    idle = scroller.scrollTop <= 0 || atHole() ? idle + 1 : 0;
    const now = await frame();
    result.frames.push(now - last);
    last = now;
    const after = topOf(seq);
    // A message that was in view and is gone is a jump, however far.
    if (row !== undefined) result.worstJump = Math.max(result.worstJump, after === undefined ? Infinity : Math.abs(after - before));
    result.elements = Math.max(result.elements, document.querySelectorAll("*").length);
    result.steps += 1;
  }
  return result;
}

async function seqsInView(page: Page): Promise<number[]> {
  return page.evaluate(() => {
    const view = document.querySelector(".scroller")?.getBoundingClientRect();
    return [...document.querySelectorAll<HTMLElement>("[data-seq]")]
      .filter((row) => view !== undefined && row.getBoundingClientRect().bottom > view.top && row.getBoundingClientRect().top < view.bottom)
      .map((row) => Number(row.dataset["seq"]));
  });
}

test("2,000 messages of history scroll by without a jump", BOUNDED, async (t) => {
  const { server, browser } = here;
  const written = { ada: numbered("from ada, a line that says something", 0, 1_000), ben: numbered("from ben", 0, 1_000) };
  const [ada, ben] = await Promise.all([person(server.url, "ada"), person(server.url, "ben")]);
  await Promise.all([sendAll(ada, "ben", written.ada), sendAll(ben, "ada", written.ben)]);
  await ada.close();

  const context = await newContext(browser);
  const page = await context.newPage();
  await enter(page, server.url, "ada", "ben");
  await page.locator(".scroller").focus();
  await page.keyboard.press("End");
  await page.locator('[data-seq="2000"]').waitFor();
  await settled(page);
  const { steps, worstJump, frames, elements } = await page.evaluate(scrollToBeginning);
  const sorted = [...frames].sort((a, b) => a - b);
  const at = (part: number) => Math.round(sorted[Math.floor((sorted.length - 1) * part)] ?? 0);
  t.diagnostic(`${steps} steps; worst jump ${worstJump.toFixed(1)} px; frames: median ${at(0.5)} ms, 95 % ${at(0.95)} ms, longest ${at(1)} ms; at most ${elements} elements`);
  assert.ok((await seqsInView(page)).includes(1), "the beginning is reached");
  assert.ok(worstJump <= 2, `a message moved by ${worstJump} px`);
  assert.ok(elements < 6_000, `${elements} elements`);
  assert.ok(at(0.95) < 250, `frames take ${at(0.95)} ms`);

  // Somebody who reads old messages stays there when a new one comes.
  await page.evaluate(() => document.querySelector(".scroller")?.scrollBy({ top: 3_000, behavior: "instant" }));
  await page.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve))));
  const before = await seqsInView(page);
  written.ben.push("something new");
  await sendAll(ben, "ada", ["something new"]);
  await page.getByRole("button", { name: "1 new" }).waitFor();
  await eventually(() => seqsInView(page), before);
  await page.getByRole("button", { name: "1 new" }).click();
  await placed(page, "something new");

  await assertOneTruth({ url: server.url, users: ["ada", "ben"], pages: [{ name: "ada", page }], written });
  context.assertClean();
  await Promise.all([context.close(), ben.close()]);
});
