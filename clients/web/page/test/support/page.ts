/** The page in Chromium, over its test double. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium, type Browser, type BrowserContextOptions, type Page } from "playwright-core";
import { bundle } from "../../scripts/bundle.ts";
import { serve, type Served } from "./server.ts";

const FLAGS = [
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
];

export const WIDE = { width: 1280, height: 800 };
export const NARROW = { width: 360, height: 720 };

export interface Stage {
  browser: Browser;
  served: Served;
  close(): Promise<void>;
}

/** With `fake: false` it is the product, whose server answers no call. */
export async function stage({ fake } = { fake: true }): Promise<Stage> {
  const directory = mkdtempSync(join(tmpdir(), "duologue-page-"));
  await bundle({ outDir: directory, fake });
  const served = await serve(directory);
  const executablePath = process.env["CHROMIUM"] ?? "/usr/bin/chromium";
  const browser = await chromium.launch({ executablePath, args: FLAGS });
  return {
    browser,
    served,
    close: async () => {
      await browser.close();
      served.close();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

export interface Opened {
  page: Page;
  /** What the page wrote to the console as an error, and what it threw. */
  errors: string[];
  close(): Promise<void>;
}

export async function openPage({ browser, served }: Stage, options: BrowserContextOptions = {}, path = "/"): Promise<Opened> {
  const context = await browser.newContext({ viewport: WIDE, locale: "en-GB", timezoneId: "Europe/Oslo", ...options });
  const page = await context.newPage();
  const errors: string[] = [];
  page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
  page.on("pageerror", (error) => errors.push(String(error)));
  page.setDefaultTimeout(10_000);
  await page.goto(served.origin + path);
  return { page, errors, close: () => context.close() };
}

/** Signs in by the form, and waits for the connection. */
export async function signIn(page: Page): Promise<void> {
  await page.getByLabel("Your name").fill("ada");
  await page.keyboard.press("Enter");
  await page.locator(".connection-none").waitFor({ state: "attached" });
}

export async function openChat(page: Page, peer: string): Promise<void> {
  await page.locator(`.list [data-peer="${peer}"]`).click();
  await page.locator(".conversation h2", { hasText: peer }).waitFor();
  await page.locator(".conversation [data-key]").first().waitFor();
}
