/**
 * The real server, as `DUOLOGUE` names it: started on free ports with data of its own,
 * killed, and started again where it was.
 */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

export const ROOT = fileURLToPath(new URL("../../../..", import.meta.url));
export const ASSETS = join(ROOT, "gateway/assets");

const START_MS = 60_000;
const NAMES = ["gRPC", "admin", "web"] as const;
type Place = (typeof NAMES)[number];

export interface Server {
  /** Where the page is. */
  readonly url: string;
  /** SIGKILL; resolves once the process is gone. */
  kill(): Promise<void>;
  /** The same ports, the same data. */
  restart(): Promise<void>;
  /** The end: process and data. */
  close(): Promise<void>;
}

export async function startServer(more: readonly string[] = []): Promise<Server> {
  const data = mkdtempSync(join(tmpdir(), "duologue-e2e-"));
  const any = "127.0.0.1:0";
  let { process: running, places } = await launch(data, { gRPC: any, admin: any, web: any }, more);
  const kill = async (): Promise<void> => {
    if (running.exitCode !== null || running.signalCode !== null) return;
    const gone = once(running, "exit");
    running.kill("SIGKILL");
    await gone;
  };
  return {
    url: `http://${places.web}`,
    kill,
    restart: async () => {
      ({ process: running, places } = await launch(data, places, more));
    },
    close: async () => {
      await kill();
      rmSync(data, { recursive: true, force: true });
    },
  };
}

/** The binary under test. */
export function binary(): string {
  const path = process.env["DUOLOGUE"] ?? join(ROOT, "target/debug/duologue");
  assert.ok(existsSync(path), `there is no server at ${path}: build it, or set DUOLOGUE`);
  return path;
}

interface Launched {
  process: ChildProcess;
  places: Record<Place, string>;
}

async function launch(data: string, at: Record<Place, string>, more: readonly string[]): Promise<Launched> {
  const flags = ["serve", "--data", data, "--grpc-listen", at.gRPC, "--admin-listen", at.admin, "--web-listen", at.web, ...more];
  const child = spawn(binary(), flags, { stdio: ["ignore", "pipe", "pipe"], env: { RUST_LOG: "warn" } });
  let text = "";
  let timer: NodeJS.Timeout | undefined;
  try {
    const places = await new Promise<Record<Place, string>>((resolve, reject) => {
      timer = setTimeout(() => reject(new Error(`the server is not up in time:\n${text}`)), START_MS);
      const hear = (chunk: Buffer): void => {
        text = (text + chunk.toString()).slice(-20_000);
        const found = placesIn(text);
        if (found !== null) resolve(found);
      };
      child.stdout.on("data", hear);
      child.stderr.on("data", hear);
      child.once("error", reject);
      child.once("exit", (code) => reject(new Error(`the server ended with ${code}:\n${text}`)));
    });
    return { process: child, places };
  } catch (error) {
    child.kill("SIGKILL");
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

function placesIn(text: string): Record<Place, string> | null {
  const found = NAMES.map((name) => [name, new RegExp(`^\\s+${name}\\s+https?://(\\S+)`, "m").exec(text)?.[1]] as const);
  return found.every(([, place]) => place !== undefined) ? (Object.fromEntries(found) as Record<Place, string>) : null;
}

/** Whether the page is to be taken from gateway/assets and not from the server. */
export const BUILT_PAGE = process.env["E2E_PAGE"] === "assets";

/** A binary that holds another page than the sources' would prove nothing of it. */
export async function assertServesBuiltPage(url: string): Promise<void> {
  if (BUILT_PAGE) return;
  const served = await (await fetch(url)).text();
  const built = readFileSync(join(ASSETS, "index.html"), "utf8");
  assert.equal(served, built, "the server holds another page than gateway/assets: build it again, or set E2E_PAGE=assets");
}
