/** Pictures of the page over its test double, to be looked at: `npm run screenshots -w page -- DIRECTORY`. */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import type { Page } from "playwright-core";
import { NARROW, openChat, openPage, signIn, stage, WIDE } from "./support/page.ts";

const into = process.argv[2] ?? "target/screenshots";
mkdirSync(into, { recursive: true });
const here = await stage();

async function picture(page: Page, name: string): Promise<void> {
  await page.waitForTimeout(250);
  await page.screenshot({ path: join(into, `${name}.png`) });
}

for (const colorScheme of ["light", "dark"] as const) {
  for (const viewport of [WIDE, NARROW]) {
    const name = (what: string): string => `${what}-${viewport.width}-${colorScheme}`;
    const { page, errors, close } = await openPage(here, { viewport, colorScheme });
    await page.getByLabel("Your name").waitFor();
    await picture(page, name("signed-out"));
    await signIn(page);
    await page.locator("[data-peer]").first().waitFor();
    await picture(page, name("list"));
    await openChat(page, "marta.olsen");
    await picture(page, name("conversation"));
    await page.evaluate(() => {
      const fake = globalThis.duologueFake;
      if (fake === undefined) return;
      fake.rejectSends = "The text holds something the server does not take.";
    });
    await page.getByLabel(/Message to/).fill("Shall I book the table for twelve then?");
    await page.getByRole("button", { name: "Send" }).click();
    await page.locator(".failed").waitFor();
    await page.evaluate(() => {
      globalThis.duologueFake?.setState({ kind: "waiting", retryAt: Date.now() + 8000, cause: "the server does not answer" });
    });
    await page.getByLabel(/Message to/).fill("One more, written without a connection");
    await page.keyboard.press("Enter");
    await picture(page, name("error"));
    if (errors.length > 0) console.error(name("errors"), errors);
    await close();
  }
}
for (const [scene, peer] of [["hostile", "jonas"]] as const) {
  const { page, close } = await openPage(here, {}, `/?scene=${scene}`);
  await signIn(page);
  await openChat(page, peer);
  await picture(page, scene);
  await close();
}
await here.close();
