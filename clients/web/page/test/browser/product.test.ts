import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { eventually } from "../support/eventually.ts";
import { openPage, stage, type Stage } from "../support/page.ts";

let here: Stage;
before(async () => {
  here = await stage({ fake: false });
});
after(() => here.close());

test("with the real client and no server: says so, keeps what is written over a reload, breaks no policy", async () => {
  const { page, errors, close } = await openPage(here, {}, "/#with=bob");
  await page.getByLabel("Your name").fill("ada");
  await page.keyboard.press("Enter");
  await page.getByText(/No connection|Connecting/).first().waitFor();
  await page.getByLabel(/Message to/).fill("written without a server");
  await page.keyboard.press("Enter");
  await page.locator(".own .mark-sending").waitFor();
  // Kept: it has an id of its own by then.
  await page.locator('.own[data-key]:not([data-key*="/local:"])').waitFor();
  await page.reload();
  await page.locator(".own", { hasText: "written without a server" }).waitFor();
  await eventually(() => page.locator(".own").count(), 1);
  // Calls that fail are no finding; a refused script, style or sink is.
  assert.deepEqual(errors.filter((text) => !/Failed to load resource|WebSocket connection/.test(text)), []);
  await close();
});
