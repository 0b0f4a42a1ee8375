/** What the server keeps, read as its users may read it; and people without a browser. */
import { openClient, type Client } from "@duologue/client";
import { WebSocket } from "ws";
import { chatClient } from "../../client/src/transport/grpcWeb.ts";
import type { Shown } from "./shown.ts";

export async function devToken(url: string, user: string): Promise<string> {
  const headers = { "content-type": "application/json", origin: url };
  const answer = await fetch(new URL("/dev/token", url), { method: "POST", headers, body: JSON.stringify({ user }) });
  if (!answer.ok) throw new Error(`/dev/token answered ${answer.status}`);
  return ((await answer.json()) as { token: string }).token;
}

/** All of a conversation, as `ListMessages` tells it to `user`. */
export async function history(url: string, user: string, peer: string): Promise<Shown[]> {
  const chat = chatClient(url);
  const headers = { authorization: `Bearer ${await devToken(url, user)}` };
  const all: Shown[] = [];
  let pageToken = "";
  do {
    const page = await chat.listMessages({ peer, pageSize: 200, pageToken, direction: 1 }, { headers, timeoutMs: 10_000 });
    for (const { seq, sender, messageId, body } of page.messages) {
      all.push({ seq: Number(seq), key: `${sender}/${messageId}`, text: body?.kind.case === "text" ? body.kind.value : "" });
    }
    pageToken = page.nextPageToken;
  } while (pageToken !== "");
  return all.sort((a, b) => a.seq - b.seq);
}

const people = new Set<Client>();

/** Those a failed test has left would keep the run from ending. */
export async function closePeople(): Promise<void> {
  await Promise.all([...people].map((client) => client.close()));
}

/** Somebody who writes by the client and not by a page. */
export async function person(url: string, user: string): Promise<Client> {
  const client = await openClient({ url, user, transport: "websocket", webSocket: WebSocket, token: () => devToken(url, user), clientName: "e2e" });
  // Nothing is delivered to whom does not listen.
  client.on(() => undefined);
  people.add(client);
  return client;
}

/** Sends all of it, and waits until the last is stored. */
export async function sendAll(client: Client, peer: string, texts: readonly string[]): Promise<void> {
  let left = texts.length;
  const done = new Promise<void>((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`${left} messages are not stored in time`)), 120_000);
    client.on((event) => {
      if (event.type === "rejected") reject(new Error(`refused: ${event.detail}`));
      if (event.type === "stored") left -= 1;
      if (left > 0) return;
      clearTimeout(timer);
      resolve();
    });
  });
  for (const text of texts) await client.send(peer, text);
  await done;
}
