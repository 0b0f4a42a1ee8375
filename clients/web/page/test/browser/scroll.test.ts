import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type { Page } from "playwright-core";
import { eventually } from "../support/eventually.ts";
import { openChat, openPage, signIn, stage, type Stage } from "../support/page.ts";

let here: Stage;
before(async () => {
  here = await stage();
});
after(() => here.close());

interface View {
  /** The seqs drawn. */
  drawn: number[];
  /** Where the first message in view stands. */
  first: { seq: number; top: number };
  elements: number;
}

function view(page: Page): Promise<View> {
  return page.evaluate(() => {
    const scroller = document.querySelector(".scroller");
    const rows = [...document.querySelectorAll<HTMLElement>("[data-seq]")];
    const edge = scroller?.getBoundingClientRect().top ?? 0;
    const row = rows.find((element) => element.getBoundingClientRect().bottom > edge);
    return {
      drawn: rows.map((element) => Number(element.dataset["seq"])),
      first: { seq: Number(row?.dataset["seq"]), top: (row?.getBoundingClientRect().top ?? 0) - edge },
      elements: document.querySelectorAll("*").length,
    };
  });
}

async function topOf(page: Page, seq: number): Promise<number> {
  return page.evaluate((at) => {
    const edge = document.querySelector(".scroller")?.getBoundingClientRect().top ?? 0;
    return (document.querySelector(`[data-seq="${at}"]`)?.getBoundingClientRect().top ?? NaN) - edge;
  }, seq);
}

const scrollBy = (page: Page, by: number): Promise<void> =>
  page.evaluate((d) => document.querySelector(".scroller")?.scrollBy(0, d), by);

/** Waits until nothing is read or drawn any more. */
async function settled(page: Page): Promise<void> {
  let last = "";
  for (let same = 0; same < 3;) {
    await page.waitForTimeout(40);
    const { drawn } = await view(page);
    const now = `${drawn[0]}-${drawn.at(-1)}`;
    same = now === last ? same + 1 : 0;
    last = now;
  }
}

test("2,000 messages scroll by without a jump, a hole, or a growing page", async () => {
  const { page, errors, close } = await openPage(here, {}, "/?scene=big");
  await signIn(page);
  await openChat(page, "marta.olsen");
  await settled(page);
  await eventually(async () => (await view(page)).drawn.at(-1), 5000);

  let oldest = 5000;
  for (let steps = 0; oldest > 3000; steps += 1) {
    assert.ok(steps < 600, `stuck at ${oldest}`);
    await scrollBy(page, -700);
    const at = (await view(page)).first;
    await settled(page);
    const after = await view(page);
    const moved = (await topOf(page, at.seq)) - at.top;
    assert.ok(Math.abs(moved) <= 2, `message ${at.seq} moved by ${moved} px`);
    assert.ok(after.drawn.every((seq, i) => i === 0 || seq === (after.drawn[i - 1] ?? 0) + 1), "no hole");
    assert.ok(after.elements < 3000, `${after.elements} elements`);
    oldest = after.first.seq;
  }

  // Something new comes: the reader stays, and is told.
  const at = (await view(page)).first;
  await page.evaluate(() => globalThis.duologueFake?.receive("marta.olsen", "something new"));
  await page.getByRole("button", { name: "1 new" }).waitFor();
  assert.ok(Math.abs((await topOf(page, at.seq)) - at.top) <= 2);
  await page.getByRole("button", { name: "1 new" }).click();
  await page.locator('[data-seq="5001"]').waitFor();
  await page.locator(".pill").waitFor({ state: "detached" });
  const end = await page.evaluate(() => {
    const s = document.querySelector(".scroller");
    return s === null ? NaN : s.scrollHeight - s.scrollTop - s.clientHeight;
  });
  assert.ok(end < 2, `${end} px from the end`);
  assert.deepEqual(errors, []);
  await close();
});

test("700 unread messages: opens at the first, reads on without a hole, jumps to both ends", async () => {
  const { page, close } = await openPage(here, {}, "/?scene=unread");
  await signIn(page);
  await eventually(() => page.locator('[data-peer="marta.olsen"] .badge').textContent(), "700 unread");
  await openChat(page, "marta.olsen");
  await page.locator("[data-unread]").waitFor();
  await settled(page);
  const { first } = await view(page);
  assert.ok(first.seq > 1290 && first.seq <= 1301, `opens at ${first.seq}`);
  const reads = await page.evaluate(() => globalThis.duologueFake?.reads.map((r) => Number(r.seq)) ?? []);
  assert.ok(reads.every((seq) => seq < 1340), `only what is in view is read: ${reads.join()}`);

  await page.locator(".pill-down").click();
  await page.locator('[data-seq="2000"]').waitFor();
  await page.waitForFunction(() => globalThis.duologueFake?.reads.at(-1)?.seq === 2000n);
  await page.locator('[data-peer="marta.olsen"] .badge').waitFor({ state: "detached" });

  // Back over the hole between what was read first and the end.
  for (let i = 0; i < 40; i += 1) {
    await scrollBy(page, -900);
    const at = (await view(page)).first;
    await settled(page);
    const moved = (await topOf(page, at.seq)) - at.top;
    assert.ok(Math.abs(moved) <= 2, `message ${at.seq} moved by ${moved} px`);
  }
  await close();
});

test("messages that come at the end are followed, and announced", async () => {
  const { page, close } = await openPage(here);
  await signIn(page);
  await openChat(page, "jonas");
  await settled(page);
  for (let i = 0; i < 30; i += 1) await page.evaluate((n) => globalThis.duologueFake?.receive("jonas", `live ${n}`), i);
  await page.getByText("live 29", { exact: true }).first().waitFor();
  await settled(page);
  await eventually(async () => (await view(page)).drawn.at(-1), 61);
  await page.locator(".pill").waitFor({ state: "detached" });
  await page.locator("[aria-live=polite]", { hasText: /jonas.*live 29/ }).waitFor({ state: "attached" });
  await close();
});

test("the page grows narrower and wider, and the reader stays", async () => {
  const { page, close } = await openPage(here, {}, "/?scene=big");
  await signIn(page);
  await openChat(page, "marta.olsen");
  await settled(page);
  await scrollBy(page, -1500);
  await settled(page);
  const at = (await view(page)).first;
  await page.setViewportSize({ width: 800, height: 500 });
  await settled(page);
  assert.ok(Math.abs((await topOf(page, at.seq)) - at.top) <= 40);
  await close();
});
