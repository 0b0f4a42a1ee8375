/**
 * Puts a tab to sleep: its process is stopped by SIGSTOP, as an operating system does.
 * (Headless Chromium freezes no page: `Page.setWebLifecycleState` is without effect on
 * a visible one, and all of them are.) `announced`: the page gets the events `freeze`
 * before and `resume` after, as where the browser freezes it.
 */
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { kill } from "node:process";
import type { Browser, Page } from "playwright-core";

/** `before` runs when the tab is awake but has not been told. */
export type Wake = (before?: () => Promise<void>) => Promise<void>;

export interface Sleep {
  announced: boolean;
  /** A page that must stay awake. */
  notWith?: Page;
}

export async function freeze(browser: Browser, page: Page, { announced, notWith }: Sleep): Promise<Wake> {
  const pid = await processOf(browser, page);
  if (notWith !== undefined) assert.notEqual(await processOf(browser, notWith), pid, "the tabs have processes of their own");
  const tell = (name: string) => page.evaluate((type) => void document.dispatchEvent(new Event(type)), name);
  if (announced) await tell("freeze");
  kill(pid, "SIGSTOP");
  return async (before) => {
    kill(pid, "SIGCONT");
    await before?.();
    if (announced) await tell("resume");
  };
}

/**
 * The page's process: the one whose trace has what the page notes. (Not by
 * `performance.mark`, which is the tests' own where they set the clock.)
 */
async function processOf(browser: Browser, page: Page): Promise<number> {
  const session = await browser.newBrowserCDPSession();
  const traced: { args?: { data?: { message?: string } }; pid?: number }[] = [];
  session.on("Tracing.dataCollected", ({ value }) => void traced.push(...value));
  const complete = new Promise((resolve) => session.once("Tracing.tracingComplete", resolve));
  await session.send("Tracing.start", { traceConfig: { includedCategories: ["devtools.timeline"] } });
  const note = randomUUID();
  await page.evaluate((message) => console.timeStamp(message), note);
  await session.send("Tracing.end");
  await complete;
  await session.detach();
  const pid = traced.find(({ args }) => args?.data?.message === note)?.pid;
  assert.ok(pid !== undefined, "the page's note is in the trace");
  return pid;
}
