import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type { Browser } from "playwright-core";
import { launch, newContext } from "../support/browser.ts";
import { assertOneTruth } from "../support/checker.ts";
import { enter, marked, placed, write } from "../support/page.ts";
import { startServer, type Server } from "../support/server.ts";

let server: Server;
let browser: Browser;
before(async () => {
  server = await startServer();
  browser = await launch();
});
after(async () => {
  await browser?.close();
  await server?.close();
});

test("two people talk: stored, delivered, read", async () => {
  const [ada, ben] = await Promise.all([newContext(browser), newContext(browser)]);
  const [one, two] = await Promise.all([ada.newPage(), ben.newPage()]);
  await enter(one, server.url, "ada", "ben");
  await write(one, "Are you there?");
  await marked(one, "Are you there?", "stored");

  // Ben comes, but does not look at the conversation: it is delivered.
  await two.goto(server.url);
  await two.getByLabel("Your name").fill("ben");
  await two.keyboard.press("Enter");
  await marked(one, "Are you there?", "delivered");
  assert.equal(await two.locator('[data-peer="ada"] .badge').textContent(), "1 unread");
  assert.equal(await two.title(), "(1) Duologue");

  await two.locator('[data-peer="ada"]').click();
  await placed(two, "Are you there?");
  await two.bringToFront();
  await marked(one, "Are you there?", "read");
  await two.locator('[data-peer="ada"] .badge').waitFor({ state: "detached" });

  const written = { ada: ["Are you there?"], ben: [] as string[] };
  for (let i = 0; i < 20; i += 1) {
    written.ben.push(`ben ${i}`);
    await write(two, `ben ${i}`);
    written.ada.push(`ada ${i}`);
    await write(one, `ada ${i}`);
  }
  await Promise.all([placed(one, "ben 19"), placed(two, "ada 19")]);
  await Promise.all([marked(one, "ada 19", "read"), marked(two, "ben 19", "read")]);
  await one.getByText("Online").first().waitFor();
  await assertOneTruth({ url: server.url, users: ["ada", "ben"], pages: [{ name: "ada", page: one }, { name: "ben", page: two }], written });
  await ada.assertClean();
  await ben.assertClean();
  await Promise.all([ada.close(), ben.close()]);
});
