/**
 * Chromium, and pages that are watched from their first moment on: what goes wrong in
 * them (console errors, exceptions, violations of the security policy, a message shown
 * twice or out of order) fails the run.
 */
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { extname, join } from "node:path";
import { type Browser, type BrowserContext, type BrowserContextOptions, chromium, type Page } from "playwright-core";
import { ASSETS, BUILT_PAGE } from "./server.ts";
import { watchPage } from "./watch.ts";

const ARGS = [
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
];
// A page that does not come from the network is of no address space, and would not be
// let to a server on this machine.
if (BUILT_PAGE) ARGS.push("--disable-features=LocalNetworkAccessChecks");
const executablePath = process.env["CHROMIUM"] ?? "/usr/bin/chromium";

export const WIDE = { width: 1280, height: 800 };
export const NARROW = { width: 360, height: 720 };
/** Nothing here may take longer. The client finds a silent link after 35 s. */
export const PATIENCE_MS = 45_000;

/** What a browser says of a server or a network that is away, and a page cannot prevent. */
const AWAY = /net::ERR_(CONNECTION_REFUSED|CONNECTION_RESET|INTERNET_DISCONNECTED|EMPTY_RESPONSE|INCOMPLETE_CHUNKED_ENCODING|SOCKET_NOT_CONNECTED|NETWORK_CHANGED|CONNECTION_CLOSED|NETWORK_IO_SUSPENDED)/;

const DEFAULTS: BrowserContextOptions = { viewport: WIDE, locale: "en-GB", timezoneId: "Europe/Oslo", reducedMotion: "reduce" };

export function launch(): Promise<Browser> {
  return chromium.launch({ executablePath, args: ARGS, timeout: PATIENCE_MS });
}

export interface Watched {
  readonly context: BrowserContext;
  /** What went wrong so far, in any of its pages. */
  readonly problems: string[];
  newPage(): Promise<Page>;
  /** Fails if anything went wrong; `away`: the network was cut on purpose. */
  assertClean(more?: { away: boolean }): void;
  close(): Promise<void>;
}

/** A browser's profile of its own: one person's browser. */
export async function newContext(browser: Browser, options: BrowserContextOptions = {}): Promise<Watched> {
  return watched(await browser.newContext({ ...DEFAULTS, ...options }));
}

/** One that is kept in a directory, so that it can be closed and opened again. */
export async function openProfile(directory: string, options: BrowserContextOptions = {}): Promise<Watched> {
  const context = await chromium.launchPersistentContext(directory, { ...DEFAULTS, ...options, executablePath, args: ARGS, timeout: PATIENCE_MS });
  return watched(context);
}

async function watched(context: BrowserContext): Promise<Watched> {
  const problems: string[] = [];
  context.setDefaultTimeout(PATIENCE_MS);
  context.setDefaultNavigationTimeout(PATIENCE_MS);
  context.on("console", (message) => {
    const { url } = message.location();
    if (message.type() === "error" || message.type() === "warning") problems.push(`console: ${message.text()} ${url}`);
  });
  context.on("weberror", (error) => problems.push(`thrown: ${String(error.error())}`));
  await context.exposeFunction("e2eProblem", (problem: string) => void problems.push(problem));
  // The loader of these files names functions by it, in those that run in a page, too.
  await context.addInitScript({ content: "globalThis.__name = (it) => it;" });
  await context.addInitScript(watchPage);
  if (BUILT_PAGE) await serveAssets(context);
  return {
    context,
    problems,
    newPage: () => context.newPage(),
    assertClean: (more) => {
      const found = more?.away ? problems.filter((problem) => !AWAY.test(problem)) : problems;
      assert.deepEqual(found, []);
    },
    close: () => context.close(),
  };
}

const TYPES: Record<string, string> = { ".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml" };

/** The headers stay the server's. */
async function serveAssets(context: BrowserContext): Promise<void> {
  await context.route((url) => url.pathname === "/" || url.pathname.startsWith("/assets/"), async (route) => {
    const url = new URL(route.request().url());
    const file = join(ASSETS, url.pathname === "/" ? "index.html" : url.pathname);
    try {
      const { headers } = await fetch(url.origin);
      const kept = Object.fromEntries(["content-security-policy", "x-content-type-options", "referrer-policy", "cross-origin-opener-policy"].map((name) => [name, headers.get(name) ?? ""]));
      assert.ok(kept["content-security-policy"]?.includes("require-trusted-types-for"), "the server sends its policy");
      if (!existsSync(file)) return await route.fulfill({ status: 404 });
      await route.fulfill({ body: readFileSync(file), headers: { ...kept, "content-type": TYPES[extname(file)] ?? "text/plain" } });
    } catch {
      await route.abort("connectionrefused");
    }
  });
}
