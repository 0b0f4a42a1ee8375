import assert from "node:assert/strict";
import { test } from "node:test";
import type { Page } from "playwright-core";
import { eventually } from "../../page/test/support/eventually.ts";
import { NARROW, newContext, WIDE } from "../support/browser.ts";
import { assertOneTruth } from "../support/checker.ts";
import { person, sendAll } from "../support/history.ts";
import { enter, marked, placed, settled, signIn, write } from "../support/page.ts";
import { BOUNDED, stage } from "../support/stage.ts";

const here = stage();
const DAY_MS = 86_400_000;

test("the browsers' clocks are a day off, one ahead and one behind", BOUNDED, async () => {
  const { server, browser } = here;
  const [ada, ben] = await Promise.all([newContext(browser), newContext(browser)]);
  await ada.context.clock.install({ time: Date.now() + DAY_MS });
  await ben.context.clock.install({ time: Date.now() - DAY_MS });
  const [one, two] = [await ada.newPage(), await ben.newPage()];
  await enter(one, server.url, "ada", "ben");
  await enter(two, server.url, "ben", "ada");
  const written = { ada: [] as string[], ben: [] as string[] };
  for (let i = 0; i < 10; i += 1) {
    for (const [page, who, other] of [[one, "ada", two], [two, "ben", one]] as const) {
      const text = `${who} ${i}`;
      written[who].push(text);
      await write(page, text);
      await placed(other, text);
    }
  }
  for (const page of [one, two]) {
    await eventually(() => page.locator(".row-day").allTextContents(), ["Today"], "days are the server's");
    const times = await page.locator(".bubble time").evaluateAll((all) => all.map((time) => Date.parse((time as HTMLTimeElement).dateTime)));
    assert.ok(times.length === 20 && times.every((time) => Math.abs(time - Date.now()) < 120_000), "times are the server's");
  }
  await assertOneTruth({ url: server.url, users: ["ada", "ben"], pages: [{ name: "ada", page: one }, { name: "ben", page: two }], written });
  ada.assertClean();
  ben.assertClean();
  await Promise.all([ada.close(), ben.close()]);
});

test("storage is forbidden: the page works, and says what that means", BOUNDED, async () => {
  const { server, browser } = here;
  const cleo = await newContext(browser);
  await cleo.context.addInitScript(() => {
    for (const name of ["localStorage", "sessionStorage", "indexedDB"]) {
      Object.defineProperty(window, name, { get: () => { throw new DOMException("forbidden", "SecurityError"); } });
    }
    // Where a browser forbids storage, it forbids this, too.
    const locks = "LockManager" in globalThis ? LockManager.prototype : null;
    if (locks !== null) locks.request = () => Promise.reject(new DOMException("forbidden", "SecurityError"));
  });
  const page = await cleo.newPage();
  await enter(page, server.url, "cleo", "dan");
  await page.getByText("This browser keeps nothing").waitFor();
  await write(page, "from a private window");
  await placed(page, "from a private window");
  const dan = await person(server.url, "dan");
  await sendAll(dan, "cleo", ["it has come"]);
  await placed(page, "it has come");
  await server.kill();
  await write(page, "while it is away");
  await server.restart();
  await placed(page, "while it is away");
  await settled(page);
  const written = { cleo: ["from a private window", "while it is away"], dan: ["it has come"] };
  await assertOneTruth({ url: server.url, users: ["cleo", "dan"], pages: [{ name: "cleo", page }], written });
  cleo.assertClean({ away: true });
  await Promise.all([cleo.close(), dan.close()]);
});

const MARKUP = `<img src=x onerror="document.title='broken'"><script>document.title='broken'</script>`;

test("names that are none are refused, and nothing of them becomes markup", BOUNDED, async () => {
  const { server, browser } = here;
  const eve = await newContext(browser);
  const page = await eve.newPage();
  await page.goto(server.url);
  for (const name of [MARKUP.slice(0, 60), "\u202Egnp.exe", `z${"\u0301".repeat(60)}`, "two words", ""]) {
    await page.getByLabel("Your name").fill(name);
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByRole("alert").waitFor();
    await page.getByLabel("Your name").fill("x");
  }
  await signIn(page, "eve");
  // In the address anybody can put anything.
  for (const name of [MARKUP, `\u202E${"w".repeat(300)}`, `z${"\u0301".repeat(10_000)}`]) {
    await page.goto(`${server.url}/#${new URLSearchParams({ with: name }).toString()}`);
    await page.reload();
    const heading = page.locator(".conversation h2");
    await heading.waitFor();
    await eventually(() => heading.textContent(), name);
    assert.equal(await page.locator(".conversation img, .conversation h2 bdi *, .sidebar img").count(), 0);
    await eventually(() => outside(page), []);
    await write(page, "to nobody");
    await page.locator(".failed").waitFor();
    await page.getByRole("button", { name: "Delete" }).click();
    await page.locator(".failed").waitFor({ state: "detached" });
  }
  assert.doesNotMatch(await page.title(), /broken/);
  const refused = eve.problems.filter((problem) => !/status of 400/.test(problem));
  assert.deepEqual(refused, []);
  await eve.close();
});

test("names that only look odd are names", BOUNDED, async () => {
  const { server, browser } = here;
  const fay = await newContext(browser);
  const page = await fay.newPage();
  await page.goto(server.url);
  await page.getByLabel("Your name").fill("constructor");
  await page.keyboard.press("Enter");
  for (const name of ["__proto__", "hasOwnProperty", "-@+.", "w".repeat(64)]) {
    await page.getByLabel("Find or start a chat").fill(name);
    await page.keyboard.press("Enter");
    await page.locator(".composer textarea").waitFor();
    await write(page, `hello ${name.slice(0, 20)}`);
    await marked(page, `hello ${name.slice(0, 20)}`, "stored");
    await assertOneTruth({ url: server.url, users: ["constructor", name], pages: [{ name, page }], written: { constructor: [`hello ${name.slice(0, 20)}`], [name]: [] } });
    await eventually(() => outside(page), []);
  }
  fay.assertClean();
  await fay.close();
});

const TEXTS = [
  MARKUP, "{{constructor.constructor('alert(1)')()}}", "javascript:alert(1)", "&lt;b&gt; &amp; &#x41;",
  "\u202Eevil \u202Dtxt.exe", "שלום, what is this? مرحبا", "\u2066\u2067\u2068 never closed", "w".repeat(4_000),
  `z${"\u0301\u0323".repeat(2_000)}`, "a\nb\n\n  c\td", "👩‍👩‍👧‍👦".repeat(50), "\u0000\u0007\u001b[31mred", "\uFFFE\u200B\uFEFF", "  spaces  ",
];

for (const viewport of [WIDE, NARROW]) {
  test(`texts are shown exactly, and stay in their place, ${viewport.width} px`, BOUNDED, async () => {
    const { server, browser } = here;
    const [me, peer] = [`gil${viewport.width}`, `hana${viewport.width}`];
    const gil = await newContext(browser, { viewport });
    const page = await gil.newPage();
    const hana = await person(server.url, peer);
    await sendAll(hana, me, TEXTS);
    await enter(page, server.url, me, peer);
    await page.locator(`[data-seq="${TEXTS.length}"]`).waitFor();
    // What can be typed, typed; and 10,000 combining marks, which are too long, refused.
    const typed = TEXTS.filter((text) => text.trim() === text && !text.includes("\n"));
    for (const [i, text] of typed.entries()) {
      await write(page, text);
      await page.locator(`[data-seq="${TEXTS.length + i + 1}"]`).waitFor();
    }
    await page.locator(".composer textarea").fill(`z${"\u0301".repeat(10_000)}`);
    await page.getByText("Too long by").waitFor();
    await eventually(() => page.getByRole("button", { name: "Send" }).isDisabled(), true);
    await page.locator(".composer textarea").fill("");
    await eventually(() => outside(page), []);
    assert.equal(await page.locator(".text *, .conversation img").count(), 0);
    await assertOneTruth({ url: server.url, users: [me, peer], pages: [{ name: me, page }], written: { [me]: typed, [peer]: TEXTS } });
    assert.doesNotMatch(await page.title(), /broken/);
    gil.assertClean();
    await Promise.all([gil.close(), hana.close()]);
  });
}

/** What is wider than it may be. */
function outside(page: Page): Promise<string[]> {
  return page.evaluate(() => {
    const wrong: string[] = [];
    if (document.documentElement.scrollWidth > innerWidth) wrong.push("the page");
    const scroller = document.querySelector(".scroller");
    if (scroller !== null && scroller.scrollWidth > scroller.clientWidth) wrong.push("the messages");
    for (const bubble of document.querySelectorAll(".bubble")) {
      const box = bubble.getBoundingClientRect();
      if (getComputedStyle(bubble).overflow !== "hidden" || box.right > innerWidth || box.left < 0) wrong.push("a bubble");
    }
    return wrong;
  });
}
