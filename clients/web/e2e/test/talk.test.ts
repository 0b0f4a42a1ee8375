import assert from "node:assert/strict";
import { test } from "node:test";
import { eventually } from "../../page/test/support/eventually.ts";
import { newContext } from "../support/browser.ts";
import { assertOneTruth, type Talk } from "../support/checker.ts";
import { enter, marked, placed, write } from "../support/page.ts";
import { BOUNDED, stage } from "../support/stage.ts";

const here = stage();

test("two people talk: stored, delivered, read", BOUNDED, async () => {
  const { server, browser } = here;
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
  await eventually(() => two.locator('[data-peer="ada"] .badge').textContent(), "1 unread");
  await eventually(() => two.title(), "(1) Duologue");

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
  ada.assertClean();
  ben.assertClean();
  await Promise.all([ada.close(), ben.close()]);
});

test("the checker sees what is missing, twice, or another", BOUNDED, async () => {
  const { server, browser } = here;
  const cleo = await newContext(browser);
  const page = await cleo.newPage();
  await enter(page, server.url, "cleo", "dan");
  for (const text of ["one", "two", "three"]) await write(page, text);
  await placed(page, "three");
  const talk: Talk = { url: server.url, users: ["cleo", "dan"], pages: [{ name: "cleo", page }], written: { cleo: ["one", "two", "three"] } };
  await assertOneTruth(talk);
  await assert.rejects(assertOneTruth({ ...talk, written: { cleo: ["one", "two", "three", "four"] } }), /everything once/);
  await assert.rejects(assertOneTruth({ ...talk, written: { cleo: ["two", "one", "three"] } }), /in order/);
  const text = page.locator(".text").getByText("two", { exact: true });
  await text.evaluate((element) => (element.firstChild as Text).data = "too");
  await assert.rejects(assertOneTruth(talk), /is shown what is kept/);
  await page.locator(".text").getByText("too", { exact: true }).evaluate((element) => (element.firstChild as Text).data = "two");
  await assertOneTruth(talk);
  cleo.assertClean();

  await page.evaluate(() => {
    const row = document.querySelector('[data-seq="2"]');
    row?.after(row.cloneNode(true));
  });
  await page.evaluate(() => document.querySelector('[data-seq="2"]')?.remove());
  await page.evaluate(() => document.querySelector('[data-seq="2"]')?.remove());
  await assert.rejects(assertOneTruth(talk), /is shown what is kept/);
  assert.match(cleo.problems.join(), /shown twice.*out of order: 2 after 2/s);
  await page.evaluate(() => document.body.append(Object.assign(document.createElement("img"), { src: "https://elsewhere.example/x.png" })));
  // The browser reports it when it likes.
  while (!cleo.problems.some((problem) => problem.startsWith("policy:"))) {
    await page.evaluate(() => new Promise((resolve) => requestAnimationFrame(resolve)));
  }
  assert.throws(() => cleo.assertClean(), /policy: img-src/);
  await cleo.close();
});
