/** What a person does with the page, and what they see of it. Every wait is bounded. */
import type { Page } from "playwright-core";

export async function signIn(page: Page, name: string): Promise<void> {
  await page.getByLabel("Your name").fill(name);
  await page.getByRole("button", { name: "Sign in" }).click();
  // On a narrow screen an open conversation hides it.
  await page.locator(".sidebar .list").waitFor({ state: "attached" });
}

/** Opens the page in a new tab, signs in, and opens the conversation. */
export async function enter(page: Page, url: string, name: string, peer: string): Promise<void> {
  await page.goto(`${url}/#${new URLSearchParams({ with: peer }).toString()}`);
  await signIn(page, name);
  await page.locator(".conversation .composer textarea").waitFor();
}

export async function write(page: Page, text: string): Promise<void> {
  await page.locator(".composer textarea").fill(text);
  await page.keyboard.press("Enter");
}

/** The row of a message, by its exact text. */
export function row(page: Page, text: string) {
  return page.locator("[data-key]").filter({ has: page.locator(".text").getByText(text, { exact: true }) });
}

/** Waits until a message has its place. */
export async function placed(page: Page, text: string): Promise<void> {
  await page.locator("[data-seq]").filter({ has: page.locator(".text").getByText(text, { exact: true }) }).waitFor();
}

/** Waits until nothing is being sent, and the connection is there. */
export async function settled(page: Page): Promise<void> {
  await page.waitForFunction(() =>
    document.querySelector(".connection-none") !== null && document.querySelector("[data-key]:not([data-seq])") === null);
}

/** Waits for an own message's mark: `stored`, `delivered` or `read`. */
export async function marked(page: Page, text: string, mark: string): Promise<void> {
  await row(page, text).locator(`.mark-${mark}`).waitFor();
}

/** Waits until an unsent message is kept: it would outlive the page. */
export async function kept(page: Page, text: string): Promise<void> {
  await page.waitForFunction((wanted) =>
    [...document.querySelectorAll<HTMLElement>("[data-key]")].some((row) =>
      row.querySelector(".text")?.textContent === wanted && !(row.dataset["key"] ?? "").includes("/local:")), text);
}
