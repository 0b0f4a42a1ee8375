/** A server and a browser for the tests of one file. */
import { after, before } from "node:test";
import type { Browser } from "playwright-core";
import { launch } from "./browser.ts";
import { closePeople } from "./history.ts";
import { assertServesBuiltPage, startServer, type Server } from "./server.ts";

export interface Stage {
  readonly server: Server;
  readonly browser: Browser;
}

export const BOUNDED = { timeout: 180_000 };

export function stage(): Stage {
  let server: Server | undefined;
  let browser: Browser | undefined;
  before(async () => {
    server = await startServer();
    await assertServesBuiltPage(server.url);
    browser = await launch();
  }, BOUNDED);
  after(async () => {
    await closePeople();
    await browser?.close();
    await server?.close();
  }, BOUNDED);
  const there = <T>(it: T | undefined): T => {
    if (it === undefined) throw new Error("only within a test");
    return it;
  };
  return {
    get server() {
      return there(server);
    },
    get browser() {
      return there(browser);
    },
  };
}

/** `name 0`, `name 1`, … */
export function numbered(name: string, from: number, count: number): string[] {
  return Array.from({ length: count }, (_, i) => `${name} ${from + i}`);
}
