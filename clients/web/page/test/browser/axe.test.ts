import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { after, before, test } from "node:test";
import type { AxeResults } from "axe-core";
import type { Page } from "playwright-core";
import { NARROW, openChat, openPage, signIn, stage, WIDE, type Stage } from "../support/page.ts";

const source = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

let here: Stage;
before(async () => {
  here = await stage();
});
after(() => here.close());

async function findings(page: Page): Promise<string[]> {
  await page.evaluate(source);
  const results = await page.evaluate("axe.run(document, { resultTypes: ['violations'] })") as AxeResults;
  assert.ok(results.passes.length > 10, "axe looked at something");
  return results.violations.map((v) => `${v.id}: ${v.nodes.map((n) => `${n.target.join(" ")} ${n.failureSummary ?? ""}`).join("; ")}`);
}

for (const colorScheme of ["light", "dark"] as const) {
  for (const viewport of [WIDE, NARROW]) {
    test(`axe finds nothing, ${colorScheme}, ${viewport.width} px`, async () => {
      const { page, errors, close } = await openPage(here, { colorScheme, viewport, reducedMotion: "reduce" });
      const found: Record<string, string[]> = {};
      await page.getByLabel("Your name").waitFor();
      found["signed out"] = await findings(page);
      await page.getByLabel("Your name").fill("not a name");
      await page.keyboard.press("Enter");
      await page.getByRole("alert").waitFor();
      found["wrong name"] = await findings(page);
      await signIn(page);
      await page.locator("[data-peer]").first().waitFor();
      found["list"] = await findings(page);
      await page.getByRole("tab", { name: /People/ }).click();
      await page.getByRole("tab", { name: /People/, selected: true }).waitFor();
      found["people"] = await findings(page);
      await page.getByRole("tab", { name: "Chats" }).click();
      await page.getByLabel("Find or start a chat").fill("ma");
      found["search"] = await findings(page);
      await page.getByLabel("Find or start a chat").fill("");
      await openChat(page, "marta.olsen");
      found["conversation"] = await findings(page);
      await page.evaluate(() => {
        if (globalThis.duologueFake !== undefined) globalThis.duologueFake.rejectSends = "It is not taken.";
      });
      await page.getByLabel(/Message to/).fill("refused");
      await page.keyboard.press("Enter");
      await page.locator(".failed").waitFor();
      await page.evaluate(() => globalThis.duologueFake?.setState({ kind: "waiting", retryAt: Date.now() + 9000, cause: "no answer" }));
      await page.getByText("No connection").waitFor();
      found["error"] = await findings(page);
      await page.evaluate(() => globalThis.duologueFake?.setState({ kind: "superseded" }));
      await page.getByText("Use here").waitFor();
      found["superseded"] = await findings(page);
      for (const [state, list] of Object.entries(found)) assert.deepEqual(list, [], state);
      assert.deepEqual(errors, []);
      await close();
    });
  }
}
