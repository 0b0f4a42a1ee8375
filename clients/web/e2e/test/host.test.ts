import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { generateKeyPairSync } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import type { Browser } from "playwright-core";
import { eventually } from "../../page/test/support/eventually.ts";
import { launch, newContext } from "../support/browser.ts";
import { marked, placed, write } from "../support/page.ts";
import { BUILT_PAGE, ROOT, type Server, startServer } from "../support/server.ts";
import { BOUNDED } from "../support/stage.ts";

let folder: string;
let server: Server;
let browser: Browser;
let host: ChildProcess;
let url: string;

before(async () => {
  folder = mkdtempSync(join(tmpdir(), "duologue-host-"));
  const keys = generateKeyPairSync("ed25519");
  writeFileSync(join(folder, "key.pem"), keys.privateKey.export({ type: "pkcs8", format: "pem" }));
  writeFileSync(join(folder, "public.pem"), keys.publicKey.export({ type: "spki", format: "pem" }));
  server = await startServer(["--jwt-public-key", join(folder, "public.pem")]);
  const flags = ["--key", join(folder, "key.pem"), "--chat", server.url, "--port", "0"];
  host = spawn("node", [join(ROOT, "examples/web/host.mjs"), ...flags], { stdio: ["ignore", "pipe", "inherit"] });
  const [line] = (await once(host.stdout!, "data")) as [Buffer];
  url = /http:\S+/.exec(line.toString())![0];
  browser = await launch();
}, BOUNDED);

after(async () => {
  await browser?.close();
  host?.kill();
  await server?.close();
  rmSync(folder, { recursive: true, force: true });
}, BOUNDED);

// The page from gateway/assets would be given in place of the host's, too.
test("a host application hands its users over to the page", { ...BOUNDED, skip: BUILT_PAGE }, async () => {
  const handedOver = async (user: string) => {
    const context = await newContext(browser);
    const page = await context.newPage();
    await page.goto(url);
    await page.getByLabel("Name").fill(user);
    await page.getByText("Sign in", { exact: true }).click();
    await page.getByText("Open the chat").click();
    await page.getByLabel("Find or start a chat").waitFor();
    await eventually(async () => page.url(), `${server.url}/`, "the address keeps no token");
    return { context, page };
  };
  const ada = await handedOver("ada");
  const ben = await handedOver("ben");
  await ada.page.getByLabel("Find or start a chat").fill("ben");
  await ada.page.keyboard.press("Enter");
  await write(ada.page, "from the host's page");
  await marked(ada.page, "from the host's page", "delivered");
  await ben.page.locator('[data-peer="ada"]').click();
  await placed(ben.page, "from the host's page");
  for (const { context } of [ada, ben]) {
    context.assertClean();
    await context.close();
  }
});

test("who has not signed in there, and pages of other sites, get no token", BOUNDED, async () => {
  const post = async (path: string, headers: Record<string, string>) => (await fetch(url + path, { method: "POST", headers })).status;
  assert.equal(await post("/chat-token", { origin: url }), 401);
  assert.equal(await post("/chat-token", { origin: "http://evil.example" }), 403);
  assert.equal(await post("/sign-in", { origin: "http://evil.example" }), 403);
  assert.equal(await post("/sign-in", {}), 403);
});
