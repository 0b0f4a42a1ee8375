import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { HOSTILE_NAMES, HOSTILE_TEXTS } from "../../src/fake/texts.ts";
import { eventually } from "../support/eventually.ts";
import { NARROW, openChat, openPage, signIn, stage, WIDE, type Stage } from "../support/page.ts";

let here: Stage;
before(async () => {
  here = await stage();
});
after(() => here.close());

for (const viewport of [WIDE, NARROW]) {
  test(`texts and names are shown exactly and stay in their place, ${viewport.width} px`, async () => {
    const { page, errors, close } = await openPage(here, { viewport }, "/?scene=hostile");
    await signIn(page);
    const names = page.locator(".list .item .name");
    await eventually(async () => (await names.allTextContents()).filter((name) => HOSTILE_NAMES.includes(name)), HOSTILE_NAMES);
    const heights = await page.locator(".list .item").evaluateAll((items) => items.map((i) => Math.round(i.getBoundingClientRect().height)));
    assert.ok(Math.max(...heights) - Math.min(...heights) <= 4, `every line is as high: ${heights.join()}`);

    await openChat(page, "jonas");
    await page.keyboard.press("End");
    await eventually(async () => (await page.locator(".text").allTextContents()).slice(-HOSTILE_TEXTS.length), HOSTILE_TEXTS);
    assert.equal(await page.locator(".text *").count(), 0);
    assert.ok(!(await page.title()).includes("broken"));

    const outside = await page.evaluate(() => {
      const wrong: string[] = [];
      if (document.documentElement.scrollWidth > innerWidth) wrong.push("the page");
      const scroller = document.querySelector(".scroller");
      if (scroller !== null && scroller.scrollWidth > scroller.clientWidth) wrong.push("the list");
      for (const text of document.querySelectorAll(".text")) {
        const bubble = text.closest(".bubble");
        const box = text.getBoundingClientRect();
        const around = bubble?.getBoundingClientRect();
        if (bubble === null || getComputedStyle(bubble).overflow !== "hidden" || around === undefined || box.left < around.left - 1 || box.right > around.right + 1) wrong.push("a text");
      }
      return wrong;
    });
    assert.deepEqual(outside, []);
    assert.deepEqual(errors, []);
    await close();
  });
}

test("10,000 combining marks draw nothing outside of their bubble", async () => {
  const { page, close } = await openPage(here, {}, "/?scene=calm");
  await signIn(page);
  await openChat(page, "jonas");
  await page.evaluate((marked) => {
    for (const text of ["before it", marked, "after it"]) globalThis.duologueFake?.receive("jonas", text);
  }, `z${"\u0301\u0323\u0308\u030c".repeat(2500)}`);
  await page.getByText("after it", { exact: true }).last().waitFor();
  await page.waitForTimeout(200);
  const count = await page.locator(".bubble").count();
  const pictures = async (): Promise<Buffer[]> => {
    const neighbours = [page.locator(".bubble").nth(count - 3), page.locator(".bubble").nth(count - 1), page.locator(".bar").last()];
    return Promise.all(neighbours.map((element) => element.screenshot()));
  };
  const marked = await pictures();
  await page.locator(".text").nth(count - 2).evaluate((text) => {
    if (text.firstChild !== null) text.firstChild.nodeValue = "z";
  });
  const plain = await pictures();
  const blank = await page.context().newPage();
  for (const [i, picture] of plain.entries()) {
    const other = marked[i];
    assert.ok(other !== undefined);
    const differing = await blank.evaluate(differingPixels, [picture.toString("base64"), other.toString("base64")]);
    assert.equal(differing, 0, `neighbour ${i} looks as always`);
  }
  await close();
});

test("an override of direction ends with its text", async () => {
  const { page, close } = await openPage(here, {}, "/?scene=hostile");
  await signIn(page);
  await openChat(page, "jonas");
  const bidi = await page.evaluate(() =>
    [".bubble", ".list .name", ".list .item-last bdi"].map((s) => getComputedStyle(document.querySelector(s) ?? document.body).unicodeBidi));
  assert.deepEqual(bidi, ["plaintext", "isolate", "isolate"]);
  await close();
});

/** How many pixels of two pictures differ by more than antialiasing does. */
async function differingPixels(pictures: string[]): Promise<number> {
  const [a, b] = await Promise.all(pictures.map(async (base64) => {
    const image = new Image();
    image.src = `data:image/png;base64,${base64}`;
    await image.decode();
    const canvas = new OffscreenCanvas(image.width, image.height);
    const context = canvas.getContext("2d");
    context?.drawImage(image, 0, 0);
    return [...(context?.getImageData(0, 0, image.width, image.height).data ?? [])];
  }));
  if (a === undefined || b === undefined || a.length === 0 || a.length !== b.length) return NaN;
  return a.filter((value, i) => Math.abs(value - (b[i] ?? 0)) > 60).length;
}
