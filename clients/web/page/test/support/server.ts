/** A small server of one directory, with the gateway's security headers and sign-in. */
import { createServer, type Server } from "node:http";
import { existsSync, readFileSync } from "node:fs";
import { extname, join } from "node:path";
import type { AddressInfo } from "node:net";

const TYPES: Record<string, string> = { ".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml" };

export const CSP =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; " +
  "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

export interface Served {
  origin: string;
  /** What `/config.json` says. */
  devToken: boolean;
  /** Added to the `Date` header. */
  skewMs: number;
  close(): void;
}

export async function serve(directory: string): Promise<Served> {
  const served: Served = { origin: "", devToken: true, skewMs: 0, close: () => server.close() };
  const server: Server = createServer((request, response) => {
    const path = new URL(request.url ?? "/", "http://x").pathname;
    const date = new Date(Date.now() + served.skewMs).toUTCString();
    const headers = { "content-security-policy": CSP, "x-content-type-options": "nosniff", date };
    if (path === "/config.json") {
      response.writeHead(200, { ...headers, "content-type": "application/json" }).end(JSON.stringify({ devToken: served.devToken }));
    } else if (path === "/dev/token") {
      response.writeHead(200, { ...headers, "content-type": "application/json" }).end(JSON.stringify({ token: "t", expiresAt: date }));
    } else {
      const file = join(directory, path === "/" ? "index.html" : path);
      if (!existsSync(file)) return void response.writeHead(404, headers).end();
      response.writeHead(200, { ...headers, "content-type": TYPES[extname(file)] ?? "text/plain" }).end(readFileSync(file));
    }
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  served.origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return served;
}
