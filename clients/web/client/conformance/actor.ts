/**
 * One client as a program of its own, which another program drives by lines of JSON
 * and kills:
 *
 *     node actor.cjs URL USER websocket|grpc-web STATE-FILE
 *
 * It reads `{"do":…}`: `send` (`peer`, `text`), `read` (`peer`, `seq`), `reconnect`,
 * `token` (`token`: what it has asked for) and `take`: the last event is dealt with.
 * It writes `{"says":…}`: `token` (`refused`) to ask for one, `sent` (`messageId`, null
 * if the outbox is full) once a message is kept, and `event`, one at a time.
 */

import { createInterface } from "node:readline";

import { WebSocket } from "ws";

import type { Client, ClientOptions, Event } from "../src/api.ts";
import { DuologueError, openClient } from "../src/index.ts";
import { FileStore } from "./fileStore.ts";

type Command =
  | { do: "send"; peer: string; text: string }
  | { do: "read"; peer: string; seq: number }
  | { do: "reconnect" }
  | { do: "token"; token: string | null }
  | { do: "take" };

/** Calls that wait for a line, in order. */
class Waiting<T> {
  readonly #resolves: ((value: T) => void)[] = [];

  next(): Promise<T> {
    return new Promise((resolve) => this.#resolves.push(resolve));
  }

  resolve(value: T): void {
    this.#resolves.shift()?.(value);
  }
}

const tokens = new Waiting<string | null>();
const takes = new Waiting<void>();

function say(line: Record<string, unknown>): void {
  // What is a bigint here is small: it counts messages of one run.
  const plain = (_: string, value: unknown) => (typeof value === "bigint" ? Number(value) : value);
  process.stdout.write(`${JSON.stringify(line, plain)}\n`);
}

async function token({ refused }: { refused: boolean }): Promise<string> {
  const asked = tokens.next();
  say({ says: "token", refused });
  const given = await asked;
  if (given === null) throw new Error("no token is given");
  return given;
}

async function send(client: Client, peer: string, text: string): Promise<void> {
  try {
    const { messageId } = await client.send(peer, text);
    say({ says: "sent", messageId });
  } catch (error) {
    if (!(error instanceof DuologueError) || error.reason !== "OUTBOX_FULL") throw error;
    say({ says: "sent", messageId: null });
  }
}

async function perform(client: Client, command: Command): Promise<void> {
  switch (command.do) {
    case "send":
      return send(client, command.peer, command.text);
    case "read":
      return client.markRead(command.peer, BigInt(command.seq));
    case "reconnect":
      return client.reconnect();
    case "token":
      return tokens.resolve(command.token);
    case "take":
      return takes.resolve();
  }
}

/** An event, with times as milliseconds since 1970. */
async function told(event: Event, store: FileStore): Promise<Record<string, unknown>> {
  switch (event.type) {
    case "connected": {
      const device = (await store.read()).get("device") as { deviceId: string };
      return { type: event.type, device: device.deviceId };
    }
    case "message": {
      const { content, acceptedAt, ...rest } = event.message;
      const text = content.kind === "text" ? content.text : null;
      return { type: event.type, message: { ...rest, text, acceptedAt: acceptedAt.getTime() } };
    }
    case "stored":
      return { ...event, acceptedAt: event.acceptedAt.getTime() };
    default:
      return { ...event };
  }
}

async function main(): Promise<void> {
  const [url, user, transport, file] = process.argv.slice(2);
  if (url === undefined || user === undefined || file === undefined || !isTransport(transport)) {
    throw new Error("usage: actor URL USER websocket|grpc-web STATE-FILE");
  }
  const store = new FileStore(file);
  const options = { url, user, transport, store, token, webSocket: WebSocket, clientName: "conformance" };
  const client = await openClient(options);
  const lines = createInterface({ input: process.stdin });
  lines.on("line", (line) => void perform(client, JSON.parse(line) as Command));
  // Whoever drives it has gone.
  lines.on("close", () => process.exit(0));
  for await (const event of client) {
    const taken = takes.next();
    say({ says: "event", event: await told(event, store) });
    await taken;
  }
}

function isTransport(name: string | undefined): name is NonNullable<ClientOptions["transport"]> {
  return name === "websocket" || name === "grpc-web";
}

void main();
