/**
 * How the page looks and loads: axe in each state, narrow and wide, light and dark; a
 * picture of each goes to target/screenshots.
 */
import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { test } from "node:test";
import type { AxeResults } from "axe-core";
import type { Page } from "playwright-core";
import { NARROW, newContext, WIDE } from "../support/browser.ts";
import { person, sendAll } from "../support/history.ts";
import { marked, settled, signIn, write } from "../support/page.ts";
import { ROOT } from "../support/server.ts";
import { BOUNDED, stage } from "../support/stage.ts";

const here = stage();
const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const PICTURES = join(ROOT, "target/screenshots");
mkdirSync(PICTURES, { recursive: true });

async function findings(page: Page): Promise<string[]> {
  await page.evaluate(AXE);
  const results = await page.evaluate("axe.run(document, { resultTypes: ['violations'] })") as AxeResults;
  assert.ok(results.passes.length > 10, "axe looked at something");
  return results.violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ target, failureSummary }) => `${target.join(" ")} ${failureSummary ?? ""}`).join("; ")}`);
}

/** What was said before, by both sides in turn. */
const TALKS: Record<string, readonly (readonly ["me" | "peer", string])[]> = {
  "tom.becker": [["peer", "The parcel has come, I put it on your desk."], ["me", "Thank you! I’ll pick it up tomorrow."]],
  "priya": [["me", "How did the talk go?"], ["peer", "Better than I feared 😄 Slides are in the usual place."]],
  "jonas": [["peer", "Are we still on for Thursday?"], ["peer", "I could also do Friday, after four."]],
  "marta.olsen": [
    ["peer", "Morning! Did you see the forecast for the weekend?"],
    ["me", "Sun on Saturday, rain from Sunday noon."],
    ["peer", "Then Saturday it is. The ferry at 9:10 gets us to the island before the crowd."],
    ["me", "Perfect. I’ll bring bread, cheese and the big thermos."],
    ["me", "And the good map this time 🙈"],
    ["peer", "Please do 😂 Last time we walked in a circle for an hour."],
    ["peer", "Should we ask Jonas, too? He has been talking about the lighthouse for weeks, and there is room in the car."],
    ["me", "Yes, ask him! Then we share the driving."],
    ["peer", "Done. He says he’ll bring the kayak straps if we take the roof rack."],
  ],
};

const NAMES = ["ada.berg", "ida.holm", "nora.lund", "emil.dahl"];

async function seed(me: string): Promise<void> {
  const { url } = here.server;
  const own = await person(url, me);
  for (const [peer, talk] of Object.entries(TALKS)) {
    const other = await person(url, `${peer}`);
    for (const [who, text] of talk) await sendAll(who === "me" ? own : other, who === "me" ? peer : me, [text]);
    // All but the last two are read.
    if (peer !== "jonas") other.markRead(me, BigInt(talk.length));
    if (peer !== "jonas") own.markRead(peer, BigInt(talk.length));
    await other.close();
  }
  await own.close();
}

for (const colorScheme of ["light", "dark"] as const) {
  for (const viewport of [WIDE, NARROW]) {
    test(`axe finds nothing, ${colorScheme}, ${viewport.width} px`, BOUNDED, async () => {
      const { server, browser } = here;
      // One person of each run: what one has read is not unread for the next.
      const me = NAMES.shift() ?? "";
      await seed(me);
      const friends = await Promise.all(["marta.olsen", "priya"].map((name) => person(server.url, name)));
      const context = await newContext(browser, { colorScheme, viewport });
      const page = await context.newPage();
      const found: Record<string, string[]> = {};
      const look = async (state: string): Promise<void> => {
        found[state] = await findings(page);
        await page.evaluate(() => document.fonts.ready);
        await page.mouse.move(viewport.width - 1, 0);
        await page.screenshot({ path: join(PICTURES, `${state}-${viewport.width}-${colorScheme}.png`) });
      };
      await page.goto(server.url);
      await page.getByLabel("Your name").waitFor();
      await look("signed-out");
      await signIn(page, me);
      await page.locator('[data-peer="tom.becker"]').waitFor();
      await page.locator('[data-peer="marta.olsen"] .dot').waitFor();
      await page.locator(".connection-none").waitFor({ state: "attached" });
      await look("list");
      await page.locator('[data-peer="marta.olsen"]').click();
      await write(page, "Deal. See you at the pier at nine!");
      await marked(page, "Deal. See you at the pier at nine!", "delivered");
      friends[0]?.markRead(me, 10n);
      await marked(page, "Deal. See you at the pier at nine!", "read");
      await page.locator(".composer textarea").fill("Don’t forget your");
      await look("conversation");
      await page.locator(".composer textarea").fill("");
      // The error state: no server, and what is written waits.
      await server.kill();
      await write(page, "Oh, and bring a towel.");
      await page.getByText("No connection").first().waitFor();
      await look("error");
      await server.restart();
      await settled(page);
      for (const [state, list] of Object.entries(found)) assert.deepEqual(list, [], state);
      context.assertClean({ away: true });
      await Promise.all([context.close(), ...friends.map((friend) => friend.close())]);
    });
  }
}

test("first paint and first message", BOUNDED, async (t) => {
  const { server, browser } = here;
  await seed("zoe");
  const runs: { cold: boolean; paint: number; message: number }[] = [];
  for (let run = 0; run < 5; run += 1) {
    const context = await newContext(browser);
    await context.context.addInitScript(() => {
      if (isSecureContext && location.protocol !== "about:") sessionStorage.setItem("duologue.account", '{"user":"zoe"}');
    });
    const page = await context.newPage();
    for (const cold of [true, false]) {
      if (cold) await page.goto(`${server.url}/#with=marta.olsen`);
      else await page.reload();
      await page.locator("[data-seq]").first().waitFor();
      const [paint, message] = await page.evaluate(() => [
        performance.getEntriesByName("first-contentful-paint")[0]?.startTime ?? NaN, globalThis.e2eTimings.firstMessage ?? NaN]);
      runs.push({ cold, paint: paint ?? NaN, message: message ?? NaN });
    }
    context.assertClean();
    await context.close();
  }
  const median = (values: number[]): number => Math.round(values.sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? NaN);
  for (const cold of [true, false]) {
    const of = runs.filter((run) => run.cold === cold);
    const [paint, message] = [median(of.map((run) => run.paint)), median(of.map((run) => run.message))];
    t.diagnostic(`${cold ? "first visit" : "reload"}: first paint ${paint} ms, first message ${message} ms (median of ${of.length})`);
    assert.ok(paint < 5_000 && message < 10_000);
  }
});
