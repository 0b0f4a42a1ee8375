import assert from "node:assert/strict";
import { test } from "node:test";
import type { Page } from "playwright-core";
import { newContext } from "../support/browser.ts";
import { assertOneTruth } from "../support/checker.ts";
import { freeze } from "../support/freeze.ts";
import { person, sendAll } from "../support/history.ts";
import { enter, placed, settled, write } from "../support/page.ts";
import { BOUNDED, numbered, stage } from "../support/stage.ts";

const here = stage();

/** How many connections a tab has opened. */
function links(page: Page): () => number {
  let count = 0;
  page.on("websocket", () => (count += 1));
  return () => count;
}

test("two tabs of one user agree; the one with the connection closes, the other takes over", BOUNDED, async () => {
  const { server, browser } = here;
  const [ada, ben] = await Promise.all([newContext(browser), newContext(browser)]);
  const [owner, follower, other] = await Promise.all([ada.newPage(), ada.newPage(), ben.newPage()]);
  const [ownerLinks, followerLinks] = [links(owner), links(follower)];
  await enter(owner, server.url, "ada", "ben");
  await settled(owner);
  await enter(follower, server.url, "ada", "ben");
  await enter(other, server.url, "ben", "ada");
  const written = { ada: [] as string[], ben: [] as string[] };
  const say = async (page: Page, who: "ada" | "ben", texts: string[]): Promise<void> => {
    for (const text of texts) {
      written[who].push(text);
      await write(page, text);
    }
  };
  // One after the other: the order of two tabs' messages is that in which they are written.
  await say(owner, "ada", numbered("from the owner", 0, 5));
  await say(follower, "ada", numbered("from the follower", 0, 5));
  await say(other, "ben", numbered("ben", 0, 5));
  for (const page of [owner, follower, other]) {
    await placed(page, "from the follower 4");
    await placed(page, "ben 4");
  }
  assert.deepEqual([ownerLinks(), followerLinks()], [1, 0], "one tab has the connection");

  // What is read in one is read in the other.
  await owner.goto(`${server.url}/#`);
  await say(other, "ben", ["look here"]);
  await follower.bringToFront();
  await placed(follower, "look here");
  await owner.locator('[data-peer="ben"] .badge').waitFor({ state: "detached" });

  const unsent = say(follower, "ada", numbered("as the other closes", 0, 10));
  await owner.close();
  await unsent;
  await placed(follower, "as the other closes 9");
  await settled(follower);
  assert.equal(followerLinks(), 1, "the follower has taken over");
  await say(other, "ben", ["are you still there?"]);
  await placed(follower, "are you still there?");

  const third = await ada.newPage();
  await enter(third, server.url, "ada", "ben");
  await say(third, "ada", ["from a third"]);
  await placed(follower, "from a third");
  await Promise.all([settled(follower), settled(third), placed(other, "from a third")]);
  const pages = [{ name: "ada", page: follower }, { name: "ada's third tab", page: third }, { name: "ben", page: other }];
  await assertOneTruth({ url: server.url, users: ["ada", "ben"], pages, written });
  ada.assertClean();
  ben.assertClean();
  await Promise.all([ada.close(), ben.close()]);
});

for (const announced of [true, false]) {
  test(`the tab with the connection is frozen, ${announced ? "and is told so before" : "without a word"}: the other takes over`, BOUNDED, async () => {
    const { server, browser } = here;
    const [me, peer] = announced ? ["cleo", "dan"] : ["gus", "ivy"];
    const cleo = await newContext(browser);
    const dan = await person(server.url, peer);
    const [owner, follower] = [await cleo.newPage(), await cleo.newPage()];
    const followerLinks = links(follower);
    await enter(owner, server.url, me, peer);
    await settled(owner);
    await enter(follower, server.url, me, peer);
    await write(owner, "before");
    await placed(follower, "before");
    const wake = await freeze(browser, owner, { announced, notWith: follower });
    try {
      await sendAll(dan, me, numbered("while one slept", 0, 5));
      await placed(follower, "while one slept 4");
      assert.equal(followerLinks(), 1);
      await write(follower, "written meanwhile");
      await placed(follower, "written meanwhile");
    } finally {
      await wake();
    }
    await placed(owner, "written meanwhile");
    await write(owner, "after");
    await Promise.all([placed(owner, "after"), placed(follower, "after")]);
    await Promise.all([settled(owner), settled(follower)]);
    const written = { [me]: ["before", "written meanwhile", "after"], [peer]: numbered("while one slept", 0, 5) };
    const pages = [{ name: me, page: owner }, { name: `${me}'s other tab`, page: follower }];
    await assertOneTruth({ url: server.url, users: [me, peer], pages, written });
    cleo.assertClean({ away: true });
    await Promise.all([cleo.close(), dan.close()]);
  });
}

/** Frozen while the other talks and the server is killed and started again; on waking,
 * the page's clocks, wall and monotonic, are ten minutes on. */
for (const announced of [true, false]) {
  test(`a tab sleeps for ten minutes, ${announced ? "and is told so before" : "without a word"}, and has everything when it wakes`, BOUNDED, async () => {
    const { server, browser } = here;
    const [me, peer] = announced ? ["eve", "fay"] : ["kim", "leo"];
    const eve = await newContext(browser);
    await eve.context.clock.install();
    const page = await eve.newPage();
    await enter(page, server.url, me, peer);
    await settled(page);
    await write(page, "good night");
    await placed(page, "good night");
    const fay = await person(server.url, peer);
    const night = numbered("in the night", 0, 30);
    const wake = await freeze(browser, page, { announced });
    try {
      await sendAll(fay, me, night.slice(0, 15));
      await server.kill();
      await server.restart();
      await sendAll(fay, me, night.slice(15));
    } finally {
      await wake(() => eve.context.clock.fastForward("10:00"));
    }
    await placed(page, "in the night 29");
    await write(page, "good morning");
    await placed(page, "good morning");
    await settled(page);
    const written = { [me]: ["good night", "good morning"], [peer]: night };
    await assertOneTruth({ url: server.url, users: [me, peer], pages: [{ name: me, page }], written });
    eve.assertClean({ away: true });
    await Promise.all([eve.close(), fay.close()]);
  });
}
