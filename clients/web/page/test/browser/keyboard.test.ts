import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { eventually } from "../support/eventually.ts";
import { NARROW, openChat, openPage, signIn, stage, type Stage } from "../support/page.ts";

let here: Stage;
before(async () => {
  here = await stage();
});
after(() => here.close());

test("sign in, find somebody, write two lines, and back to the list: by keyboard alone", async () => {
  const { page, errors, close } = await openPage(here);
  await page.getByLabel("Your name").waitFor();
  await eventually(() => page.evaluate(() => document.activeElement?.tagName), "INPUT");
  await page.keyboard.type("ada");
  await page.keyboard.press("Enter");
  await page.locator("[data-peer]").first().waitFor();

  await page.keyboard.press("Control+k");
  await page.keyboard.type("jon");
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "jonas" }).waitFor();
  await page.locator("[data-seq]").first().waitFor();

  await eventually(() => page.evaluate(() => document.activeElement?.tagName), "TEXTAREA");
  await page.keyboard.type("first line");
  await page.keyboard.press("Shift+Enter");
  await page.keyboard.type("second line");
  await page.keyboard.press("Enter");
  await eventually(() => page.locator(".own .text").last().textContent(), "first line\nsecond line");
  await page.locator(".own").last().locator(".mark-stored").waitFor();

  await page.keyboard.press("Escape");
  await page.locator(".nothing-open").waitFor();
  const focused = () => page.evaluate(() => (document.activeElement instanceof HTMLElement ? document.activeElement.dataset["peer"] : undefined));
  await eventually(focused, "jonas");
  await page.keyboard.press("Home");
  await eventually(focused, "jonas", "it has become the most recent");
  await page.keyboard.press("ArrowDown");
  await eventually(focused, "marta.olsen");
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
  await eventually(() => page.evaluate(() => document.activeElement?.tagName), "TEXTAREA");
  await page.keyboard.type("hello");
  await page.keyboard.press("Enter");
  await page.locator('.list [data-peer="newcomer"]').waitFor();
  await close();
});

test("on a narrow screen list and conversation are two screens, and back leads back", async () => {
  const { page, close } = await openPage(here, { viewport: NARROW });
  await signIn(page);
  await openChat(page, "jonas");
  await page.locator(".sidebar").waitFor({ state: "hidden" });
  await eventually(() => page.evaluate(() => document.activeElement?.id), "with", "the heading has the focus");
  await page.goBack();
  await page.locator(".sidebar").waitFor();
  await page.locator(".conversation").waitFor({ state: "detached" });
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
  const first = () => page.locator(".list .name").first().textContent();
  await page.locator(".tab-count").waitFor();
  await eventually(first, "aiko");
  await page.evaluate(() => globalThis.duologueFake?.appear({ user: "aiko", online: false }));
  await page.waitForFunction(() => document.querySelector(".list .name")?.textContent !== "aiko");
  await close();
});
