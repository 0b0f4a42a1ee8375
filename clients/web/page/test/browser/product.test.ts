import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { openPage, signIn, stage, type Stage } from "../support/page.ts";

let here: Stage;
before(async () => {
  here = await stage({ fake: false });
});
after(() => here.close());

test("with the real client and no server: says so, keeps what is written over a reload, breaks no policy", async () => {
  const { page, errors, close } = await openPage(here, {}, "/#with=bob");
  await signIn(page);
  await page.getByText(/No connection|Connecting/).first().waitFor();
  await page.getByLabel(/Message to/).fill("written without a server");
  await page.keyboard.press("Enter");
  await page.locator(".own .mark-sending").waitFor();
  await page.waitForTimeout(300);
  await page.reload();
  await page.locator(".own", { hasText: "written without a server" }).waitFor();
  assert.equal(await page.locator(".own").count(), 1);
  // Calls that fail are no finding; a refused script, style or sink is.
  assert.deepEqual(errors.filter((text) => !/Failed to load resource|WebSocket connection/.test(text)), []);
  await close();
});
