import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import type { Page } from "playwright-core";
import { eventually } from "../../page/test/support/eventually.ts";
import { newContext, openProfile } from "../support/browser.ts";
import { assertOneTruth } from "../support/checker.ts";
import { enter, kept, placed, settled, write } from "../support/page.ts";
import { BOUNDED, numbered, stage } from "../support/stage.ts";

const here = stage();

async function writeAll(page: Page, texts: readonly string[]): Promise<void> {
  for (const text of texts) await write(page, text);
}

test("offline and online again in mid-send", BOUNDED, async () => {
  const { server, browser } = here;
  const [ada, ben] = await Promise.all([newContext(browser), newContext(browser)]);
  const [one, two] = await Promise.all([ada.newPage(), ben.newPage()]);
  await Promise.all([enter(one, server.url, "ada", "ben"), enter(two, server.url, "ben", "ada")]);
  await settled(one);
  const written = { ada: numbered("ada", 0, 40), ben: numbered("ben", 0, 20) };
  const others = writeAll(two, written.ben);
  await writeAll(one, written.ada.slice(0, 10));
  await ada.context.setOffline(true);
  await writeAll(one, written.ada.slice(10, 25));
  await one.getByText("You are offline").waitFor();
  await others;
  await two.getByText("ben 19", { exact: true }).first().waitFor();
  await ada.context.setOffline(false);
  await writeAll(one, written.ada.slice(25));
  await Promise.all([placed(one, "ben 19"), placed(two, "ada 39"), settled(one), settled(two)]);
  await assertOneTruth({ url: server.url, users: ["ada", "ben"], pages: [{ name: "ada", page: one }, { name: "ben", page: two }], written });
  ada.assertClean({ away: true });
  ben.assertClean();
  await Promise.all([ada.close(), ben.close()]);
});

test("the server is killed and started again in mid-conversation, twice", BOUNDED, async () => {
  const { server, browser } = here;
  const [cleo, dan] = await Promise.all([newContext(browser), newContext(browser)]);
  const [one, two] = await Promise.all([cleo.newPage(), dan.newPage()]);
  await Promise.all([enter(one, server.url, "cleo", "dan"), enter(two, server.url, "dan", "cleo")]);
  await Promise.all([settled(one), settled(two)]);
  const written = { cleo: numbered("cleo", 0, 60), dan: numbered("dan", 0, 60) };
  for (const from of [0, 30]) {
    const talk = (count: [number, number]) => Promise.all([
      writeAll(one, written.cleo.slice(from + count[0], from + count[1])),
      writeAll(two, written.dan.slice(from + count[0], from + count[1])),
    ]);
    const talking = talk([0, 12]);
    await placed(one, `dan ${from + 4}`);
    await server.kill();
    await talking;
    await one.getByText("No connection").first().waitFor();
    await talk([12, 20]);
    await server.restart();
    await talk([20, 30]);
    await Promise.all([settled(one), settled(two)]);
  }
  await Promise.all([placed(one, "dan 59"), placed(two, "cleo 59")]);
  await assertOneTruth({ url: server.url, users: ["cleo", "dan"], pages: [{ name: "cleo", page: one }, { name: "dan", page: two }], written });
  cleo.assertClean({ away: true });
  dan.assertClean({ away: true });
  await Promise.all([cleo.close(), dan.close()]);
});

test("a reload with unsent messages: they are sent after it, once", BOUNDED, async () => {
  const { server, browser } = here;
  const eve = await newContext(browser);
  const page = await eve.newPage();
  await enter(page, server.url, "eve", "fay");
  await write(page, "before");
  await placed(page, "before");
  await server.kill();
  const written = { eve: ["before", ...numbered("in a tunnel", 0, 5)], fay: [] };
  await writeAll(page, written.eve.slice(1));
  await kept(page, "in a tunnel 4");
  await page.reload().catch(() => undefined);
  // The browser's page about it comes a moment later, and would interrupt what follows.
  await page.waitForURL("chrome-error://chromewebdata/", { waitUntil: "commit" });
  await server.restart();
  await page.goto(`${server.url}/#with=fay`);
  await placed(page, "in a tunnel 4");
  await settled(page);
  await assertOneTruth({ url: server.url, users: ["eve", "fay"], pages: [{ name: "eve", page }], written });

  // And while they are under way.
  const more = numbered("under way", 0, 30);
  for (const [i, text] of more.entries()) {
    await write(page, text);
    await kept(page, text);
    if (i % 10 === 9) {
      await page.reload();
      await page.locator(".composer textarea").waitFor();
    }
  }
  await placed(page, "under way 29");
  await settled(page);
  written.eve.push(...more);
  await assertOneTruth({ url: server.url, users: ["eve", "fay"], pages: [{ name: "eve", page }], written });
  eve.assertClean({ away: true });
  await eve.close();
});

test("the browser is closed with unsent messages and opened again: they are sent, once", BOUNDED, async () => {
  const { server } = here;
  const profile = mkdtempSync(join(tmpdir(), "duologue-profile-"));
  try {
    const first = await openProfile(profile);
    const page = await first.newPage();
    await enter(page, server.url, "gil", "hana");
    await write(page, "before");
    await placed(page, "before");
    await server.kill();
    const written = { gil: ["before", ...numbered("on the train", 0, 5)], hana: [] };
    await writeAll(page, written.gil.slice(1));
    await kept(page, "on the train 4");
    await page.locator(".composer textarea").fill("a draft");
    first.assertClean({ away: true });
    await first.close();

    await server.restart();
    const second = await openProfile(profile);
    const again = await second.newPage();
    await again.goto(server.url);
    await eventually(() => again.getByLabel("Your name").inputValue(), "gil", "who it was is proposed");
    await enter(again, server.url, "gil", "hana");
    await placed(again, "on the train 4");
    await settled(again);
    await eventually(() => again.locator(".composer textarea").inputValue(), "a draft");
    await assertOneTruth({ url: server.url, users: ["gil", "hana"], pages: [{ name: "gil", page: again }], written });
    second.assertClean();
    await second.close();
  } finally {
    rmSync(profile, { recursive: true, force: true });
  }
});
