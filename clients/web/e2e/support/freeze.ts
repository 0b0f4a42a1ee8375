/**
 * Puts a tab to sleep: its process is stopped by SIGSTOP, as an operating system does.
 * (Headless Chromium freezes no page: `Page.setWebLifecycleState` is without effect on
 * a visible one, and all of them are.) `announced`: the page gets the events `freeze`
 * before and `resume` after, as where the browser freezes it.
 */
import assert from "node:assert/strict";
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

/** The page's process: the one that is busy when the page is. */
async function processOf(browser: Browser, page: Page): Promise<number> {
  const session = await browser.newBrowserCDPSession();
  const times = async (): Promise<Map<number, number>> => {
    const { processInfo } = await session.send("SystemInfo.getProcessInfo");
    return new Map(processInfo.filter(({ type }) => type === "renderer").map(({ id, cpuTime }) => [id, cpuTime]));
  };
  const before = await times();
  await page.evaluate(() => {
    // Work and not a time: the machine may have much to do beside it.
    let sum = 0;
    for (let i = 0; i < 8e8; i += 1) sum = (sum + i) | 0;
    return sum;
  });
  const after = await times();
  await session.detach();
  const busy = [...after].map(([id, time]) => ({ id, ran: time - (before.get(id) ?? 0) })).sort((a, b) => b.ran - a.ran);
  const [first, second] = busy;
  assert.ok(first !== undefined && first.ran >= 0.05 && first.ran > 2 * (second?.ran ?? 0), `which process is the page's: ${JSON.stringify(busy)}`);
  return first.id;
}
