import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { eventually } from "../support/eventually.ts";
import { openChat, openPage, signIn, stage, type Stage } from "../support/page.ts";

let here: Stage;
before(async () => {
  here = await stage();
});
after(() => here.close());

const jwt = (claims: object): string => ["{}", JSON.stringify(claims), "x"].map((part) => Buffer.from(part).toString("base64url")).join(".");

test("a token in the fragment signs in and leaves the address at once", async () => {
  const { page, errors, close } = await openPage(here, {}, `/#token=${jwt({ sub: "grace" })}&with=jonas`);
  await page.locator(".me", { hasText: "grace" }).waitFor();
  assert.equal(new URL(page.url()).hash, "#with=jonas");
  await page.getByRole("heading", { name: "jonas" }).waitFor();
  assert.deepEqual(errors, []);
  await close();
});

test("without the development sign-in the page explains, and takes a pasted token", async () => {
  here.served.devToken = false;
  const { page, close } = await openPage(here);
  await page.getByText("Your application signs you in here.").waitFor();
  await page.getByText("Sign in with a token").click();
  await page.getByLabel("Token").fill("nonsense");
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("alert").waitFor();
  await page.getByLabel("Token").fill(jwt({ sub: "grace" }));
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.locator(".me", { hasText: "grace" }).waitFor();
  await page.reload();
  await page.locator(".me", { hasText: "grace" }).waitFor();
  here.served.devToken = true;
  await close();
});

test("drafts are kept for each conversation, over a reload; signing out forgets who it was", async () => {
  const { page, close } = await openPage(here);
  await signIn(page);
  await openChat(page, "jonas");
  await page.getByLabel(/Message to/).fill("half a thought");
  await openChat(page, "marta.olsen");
  await eventually(() => page.getByLabel(/Message to/).inputValue(), "");
  await page.locator('[data-peer="jonas"] .draft').waitFor();
  await page.reload();
  await page.getByRole("heading", { name: "marta.olsen" }).waitFor();
  await openChat(page, "jonas");
  await eventually(() => page.getByLabel(/Message to/).inputValue(), "half a thought");
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByLabel("Your name").waitFor();
  await page.reload();
  await page.getByLabel("Your name").waitFor();
  await close();
});

test("a refused message can be tried again, edited and deleted, and outlives a reload", async () => {
  const { page, close } = await openPage(here);
  const refuse = (why: string | null) => page.evaluate((w) => {
    if (globalThis.duologueFake !== undefined) globalThis.duologueFake.rejectSends = w;
  }, why);
  await signIn(page);
  await openChat(page, "jonas");
  await refuse("It is not taken.");
  await page.getByLabel(/Message to/).fill("refused once");
  await page.keyboard.press("Enter");
  await page.locator(".failed", { hasText: "It is not taken." }).waitFor();
  await page.reload();
  await page.locator(".failed", { hasText: "refused once" }).waitFor();
  await page.getByRole("button", { name: "Edit" }).click();
  await eventually(() => page.getByLabel(/Message to/).inputValue(), "refused once");
  await page.locator(".failed").waitFor({ state: "detached" });
  await refuse("It is not taken.");
  await page.keyboard.press("Enter");
  await page.locator(".failed").waitFor();
  await refuse(null);
  await page.getByRole("button", { name: "Try again" }).click();
  await page.locator(".failed").waitFor({ state: "detached" });
  await page.locator(".own").last().locator(".mark-stored").waitFor();
  await eventually(() => page.locator(".text", { hasText: "refused once" }).count(), 1);
  await close();
});

test("a message that is not sent for a while can be given up", async () => {
  const { page, close } = await openPage(here);
  await signIn(page);
  await openChat(page, "jonas");
  await page.evaluate(() => {
    const message = { messageId: "own-old", peer: "jonas", text: "from a tunnel", writtenAt: new Date(Date.now() - 60_000) };
    globalThis.duologueFake?.emit({ type: "pending", message });
  });
  await page.getByRole("button", { name: "Give up" }).click();
  await page.locator(".text", { hasText: "from a tunnel" }).waitFor({ state: "detached" });
  await eventually(() => page.evaluate(() => globalThis.duologueFake?.abandoned), ["own-old"]);
  await close();
});

test("conversations that a short page left out can be had, and open where the user was", async () => {
  const { page, close } = await openPage(here, {}, "/?scene=short");
  await signIn(page);
  await page.locator(".list [data-peer]").nth(1).waitFor();
  await page.evaluate(() => globalThis.duologueFake?.receive("lena", "news"));
  await openChat(page, "lena");
  await eventually(() => page.locator(".row-unread + li").getAttribute("data-seq"), "8");
  const more = page.getByRole("button", { name: "More", exact: true });
  for (const count of [4, 6]) {
    await more.click();
    await page.locator(".list [data-peer]").nth(count - 1).waitFor();
  }
  await more.waitFor({ state: "detached" });
  await close();
});

test("who is online is asked for again if it could not be known", async () => {
  const { page, close } = await openPage(here);
  await signIn(page);
  const here_ = page.locator('[data-peer="jonas"] .sr', { hasText: "online" });
  await here_.waitFor({ state: "attached" });
  await page.evaluate(() => {
    const fake = globalThis.duologueFake;
    if (fake === undefined) return;
    fake.setState({ kind: "catching-up" });
    fake.failCalls = Infinity;
    fake.setState({ kind: "connected" });
    fake.emit({ type: "caught-up" });
  });
  await here_.waitFor({ state: "detached" });
  await page.evaluate(() => {
    if (globalThis.duologueFake !== undefined) globalThis.duologueFake.failCalls = 0;
  });
  await here_.waitFor({ state: "attached" });
  await close();
});

test("a change of who is online is newer than an answer that was asked for before it", async () => {
  const { page, close } = await openPage(here);
  await signIn(page);
  const online = (peer: string) => page.locator(`[data-peer="${peer}"] .sr`, { hasText: "online" });
  await online("jonas").waitFor({ state: "attached" });
  const release = await page.evaluateHandle(() => {
    const fake = globalThis.duologueFake;
    const release = fake?.hold();
    fake?.emit({ type: "presence-reset" });
    fake?.emit({ type: "presence", presence: { user: "jonas", online: false } });
    return release;
  });
  await online("marta.olsen").waitFor({ state: "detached" });
  await release.evaluate((answer) => answer?.());
  await online("marta.olsen").waitFor({ state: "attached" });
  assert.equal(await online("jonas").count(), 0);
  await close();
});

test("what comes while nobody looks is divided from what was seen", async () => {
  const { page, close } = await openPage(here);
  await signIn(page);
  await openChat(page, "jonas");
  await page.locator(".row-unread").waitFor({ state: "detached" });
  await page.evaluate(() => {
    dispatchEvent(new Event("blur"));
    globalThis.duologueFake?.receive("jonas", "are you there?");
  });
  await page.locator(".row-unread + li", { hasText: "are you there?" }).waitFor();
  await close();
});

test("marks go from sending over stored and delivered to read", async () => {
  const { page, close } = await openPage(here);
  await signIn(page);
  await openChat(page, "jonas");
  await page.evaluate(() => globalThis.duologueFake?.setState({ kind: "offline" }));
  await page.getByLabel(/Message to/).fill("from the tunnel");
  await page.keyboard.press("Enter");
  const last = page.locator(".own").last();
  await last.locator(".mark-sending").waitFor();
  await page.getByText("You are offline.").waitFor();
  await page.evaluate(() => globalThis.duologueFake?.connect());
  await last.locator(".mark-stored").waitFor();
  await page.evaluate(() => globalThis.duologueFake?.receipt("jonas", 32n, 31n));
  await last.locator(".mark-delivered").waitFor();
  await page.evaluate(() => globalThis.duologueFake?.receipt("jonas", 32n, 32n));
  await last.locator(".mark-read").waitFor();
  await close();
});

test("the line about the connection says what happens and what can be done", async () => {
  const { page, close } = await openPage(here);
  await signIn(page);
  const become = (state: Parameters<NonNullable<typeof globalThis.duologueFake>["setState"]>[0]) =>
    page.evaluate((s) => globalThis.duologueFake?.setState(s), state);
  await become({ kind: "waiting", retryAt: Date.now() + 30_000, cause: "no answer" });
  await page.getByText("Trying again in 30 s.").or(page.getByText("Trying again in 29 s.")).waitFor();
  await page.getByRole("button", { name: "Try now" }).click();
  await page.locator(".connection-none").waitFor({ state: "attached" });
  await become({ kind: "superseded" });
  await page.getByRole("button", { name: "Use here" }).click();
  await page.locator(".connection-none").waitFor({ state: "attached" });
  await become({ kind: "stopped", reason: "unauthenticated", detail: "" });
  await page.getByRole("button", { name: "Sign in again" }).click();
  await page.getByLabel("Your name").waitFor();
  await close();
});

test("what could not be read is said, and read again", async () => {
  const { page, close } = await openPage(here);
  await signIn(page);
  await page.locator("[data-peer]").first().waitFor();
  await page.evaluate(() => {
    if (globalThis.duologueFake !== undefined) globalThis.duologueFake.failCalls = Infinity;
  });
  await page.locator('[data-peer="jonas"]').click();
  await page.getByText("Messages could not be loaded.").first().waitFor();
  await page.evaluate(() => {
    if (globalThis.duologueFake !== undefined) globalThis.duologueFake.failCalls = 0;
  });
  await page.getByRole("button", { name: "Try again" }).first().click();
  await page.locator("[data-seq]").first().waitFor();
  await close();
});

test("a device clock that is wrong by a day does not move the days", async () => {
  here.served.skewMs = 26 * 3_600_000;
  const { page, close } = await openPage(here, {}, "/?scene=skewed");
  await signIn(page);
  await openChat(page, "jonas");
  await page.getByLabel(/Message to/).fill("now");
  await page.keyboard.press("Enter");
  await page.locator(".own").last().locator(".mark-stored").waitFor();
  await eventually(() => page.locator(".row-day").last().textContent(), "Today");
  here.served.skewMs = 0;
  await close();
});

test("storage that is forbidden forbids nothing else", async () => {
  const { page, errors, close } = await openPage(here);
  await page.context().addInitScript(() => {
    for (const area of ["localStorage", "sessionStorage"]) {
      Object.defineProperty(window, area, { get() { throw new DOMException("denied", "SecurityError"); } });
    }
  });
  await page.reload();
  await signIn(page);
  await openChat(page, "jonas");
  await page.getByLabel(/Message to/).fill("kept as long as the page");
  await openChat(page, "marta.olsen");
  await openChat(page, "jonas");
  await eventually(() => page.getByLabel(/Message to/).inputValue(), "kept as long as the page");
  assert.deepEqual(errors, []);
  await close();
});
