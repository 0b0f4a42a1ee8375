import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { NARROW, openChat, openPage, signIn, stage, type Stage } from "../support/page.ts";

let here: Stage;
before(async () => {
  here = await stage();
});
after(() => here.close());

test("sign in, find somebody, write two lines, and back to the list: by keyboard alone", async () => {
  const { page, errors, close } = await openPage(here);
  await page.getByLabel("Your name").waitFor();
  await page.keyboard.type("ada");
  await page.keyboard.press("Enter");
  await page.locator("[data-peer]").first().waitFor();

  await page.keyboard.press("Control+k");
  await page.keyboard.type("jon");
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "jonas" }).waitFor();
  await page.locator("[data-seq]").first().waitFor();

  assert.equal(await page.evaluate(() => document.activeElement?.tagName), "TEXTAREA");
  await page.keyboard.type("first line");
  await page.keyboard.press("Shift+Enter");
  await page.keyboard.type("second line");
  await page.keyboard.press("Enter");
  const sent = page.locator(".own .text").last();
  assert.equal(await sent.textContent(), "first line\nsecond line");
  await page.locator(".own").last().locator(".mark-stored").waitFor();

  await page.keyboard.press("Escape");
  await page.locator(".nothing-open").waitFor();
  const focused = () => page.evaluate(() => (document.activeElement instanceof HTMLElement ? document.activeElement.dataset["peer"] : undefined));
  assert.equal(await focused(), "jonas");
  await page.keyboard.press("Home");
  assert.equal(await focused(), "jonas", "it has become the most recent");
  await page.keyboard.press("ArrowDown");
  assert.equal(await focused(), "marta.olsen");
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "marta.olsen" }).waitFor();
  assert.deepEqual(errors, []);
  await close();
});

test("a chat can be started with a name that nobody here has", async () => {
  const { page, close } = await openPage(here);
  await signIn(page);
  await page.keyboard.press("Control+k");
  await page.keyboard.type("newcomer");
  await page.getByText("Start a chat with").waitFor();
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("Enter");
  await page.getByText("This is the beginning of your conversation.").waitFor();
  await page.keyboard.type("hello");
  await page.keyboard.press("Enter");
  await page.locator('.list [data-peer="newcomer"]').waitFor();
  await close();
});

test("on a narrow screen list and conversation are two screens, and back leads back", async () => {
  const { page, close } = await openPage(here, { viewport: NARROW });
  await signIn(page);
  await openChat(page, "jonas");
  assert.equal(await page.locator(".sidebar").isVisible(), false);
  assert.equal(await page.evaluate(() => document.activeElement?.id), "with", "the heading has the focus");
  await page.goBack();
  await page.locator(".sidebar").waitFor();
  assert.equal(await page.locator(".conversation").count(), 0);
  await openChat(page, "jonas");
  await page.getByRole("button", { name: "Back to the list" }).click();
  await page.locator(".sidebar").waitFor();
  await openChat(page, "jonas");
  await page.keyboard.press("Control+k");
  await page.getByLabel("Find or start a chat").waitFor();
  await page.waitForFunction(() => document.activeElement?.tagName === "INPUT");
  assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth));
  await close();
});

test("arrows change the tab, and people are online first and live", async () => {
  const { page, close } = await openPage(here);
  await signIn(page);
  await page.getByRole("tab", { name: "Chats" }).focus();
  await page.keyboard.press("ArrowRight");
  await page.getByRole("tab", { name: /People/, selected: true }).waitFor();
  const names = () => page.locator(".list .name").allTextContents();
  assert.equal((await names())[0], "aiko");
  await page.evaluate(() => globalThis.duologueFake?.emit({ type: "presence", presence: { user: "aiko", online: false } }));
  await page.waitForFunction(() => document.querySelector(".list .name")?.textContent !== "aiko");
  await close();
});
