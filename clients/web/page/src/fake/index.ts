/**
 * The page's test double of `@duologue/client`: a server and a client in memory. The
 * test build takes it instead of the client; the product never holds it.
 */
import type { Client, ClientOptions } from "../api.ts";
import { FakeClient } from "./client.ts";
import { seed } from "./seed.ts";

declare global {
  var duologueFake: FakeClient | undefined;
}

export async function openShared(options: ClientOptions): Promise<Client> {
  await options.token({ refused: false });
  const scene = new URLSearchParams(location.search).get("scene") ?? "default";
  const client = new FakeClient(options.user, seed(options.user, scene));
  globalThis.duologueFake = client;
  if (scene === "short") client.listPage = 2;
  client.connectSoon();
  return client;
}
