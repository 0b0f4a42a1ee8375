/** What the fake's server holds at first, by scene. */
import type { Conversation, Cursor, Message, Presence, Seq, UserId } from "../api.ts";
import { HOSTILE_NAMES, HOSTILE_TEXTS, LINES, PEOPLE } from "./texts.ts";

interface Held {
  messages: Message[];
  own: Cursor;
  peerCursor: Cursor;
}

const MINUTE_MS = 60_000;

export class Seed {
  readonly presence = new Map<UserId, Presence>();
  private readonly held = new Map<UserId, Held>();

  /** The server's clock less this device's. */
  constructor(readonly skewMs: number) {}

  conversation(peer: UserId): Held {
    const held = this.held.get(peer) ?? { messages: [], own: { delivered: 0n, read: 0n }, peerCursor: { delivered: 0n, read: 0n } };
    this.held.set(peer, held);
    return held;
  }

  append(peer: UserId, sender: UserId, text: string, messageId: string, acceptedAt: Date): Message {
    const { messages } = this.conversation(peer);
    const message: Message = { peer, seq: BigInt(messages.length + 1), messageId, sender, content: { kind: "text", text }, acceptedAt };
    messages.push(message);
    return message;
  }

  head(peer: UserId): Seq {
    return BigInt(this.conversation(peer).messages.length);
  }

  messages(peer: UserId): Message[] {
    return [...this.conversation(peer).messages];
  }

  conversations(me: UserId): Conversation[] {
    const time = (held: Held): number => held.messages[held.messages.length - 1]?.acceptedAt.getTime() ?? 0;
    return [...this.held]
      .filter(([, held]) => held.messages.length > 0)
      .sort(([, a], [, b]) => time(b) - time(a))
      .map(([peer, held]) => conversation(peer, held, me));
  }
}

function conversation(peer: UserId, held: Held, me: UserId): Conversation {
  const lastMessage = held.messages[held.messages.length - 1];
  const unread = held.messages.filter((m) => m.sender !== me && m.seq > held.own.read).length;
  return {
    peer, head: BigInt(held.messages.length), unread: BigInt(unread), own: { ...held.own }, peerCursor: { ...held.peerCursor },
    ...(lastMessage === undefined ? {} : { lastMessage }),
  };
}

/** `count` messages, the last one `endsAgo` minutes ago, of which `unread` are new. */
function talk(seed: Seed, me: UserId, peer: UserId, count: number, endsAgo: number, unread = 0): void {
  const now = Date.now() + seed.skewMs;
  for (let i = 0; i < count; i += 1) {
    // Bursts, with an hour or half a night between them.
    const pauses = Math.floor((count - 1) / 9) - Math.floor(i / 9);
    const ago = endsAgo + (count - 1 - i) * 1.6 + pauses * 170;
    const line = LINES[(i + peer.length * 3) % LINES.length];
    const sender = line?.[0] === "me" && i < count - unread ? me : peer;
    seed.append(peer, sender, count > 200 ? `${i + 1}. ${line?.[1] ?? ""}` : (line?.[1] ?? ""), `seed-${i}`, new Date(now - ago * MINUTE_MS));
  }
  const held = seed.conversation(peer);
  const read = BigInt(count - unread);
  held.own = { delivered: BigInt(count), read };
  held.peerCursor = { delivered: BigInt(count), read: BigInt(Math.max(0, count - 3)) };
}

export function seed(me: UserId, scene: string): Seed {
  const all = new Seed(scene === "skewed" ? 26 * 60 * MINUTE_MS : 0);
  const now = Date.now() + all.skewMs;
  if (scene === "empty") return all;
  PEOPLE.forEach((user, i) => {
    const online = i % 3 !== 2;
    all.presence.set(user, online ? { user, online } : { user, online, lastSeen: new Date(now - i * 47 * MINUTE_MS) });
  });
  if (scene === "big") talk(all, me, "marta.olsen", 5000, 3);
  else if (scene === "unread") talk(all, me, "marta.olsen", 2000, 3, 700);
  else talk(all, me, "marta.olsen", 46, 4, scene === "default" ? 3 : 0);
  talk(all, me, "jonas", 31, 22);
  talk(all, me, "priya.raman", 12, 95, 1);
  talk(all, me, "t.whitfield", 9, 1500);
  talk(all, me, "support+eu@example.com", 5, 4300);
  talk(all, me, "lena", 7, 9100);
  if (scene === "hostile") {
    HOSTILE_NAMES.forEach((name, i) => talk(all, me, name, 2, 1 + i));
    HOSTILE_TEXTS.forEach((text, i) => all.append("jonas", i % 2 === 0 ? "jonas" : me, text, `hostile-${i}`, new Date(now)));
  }
  return all;
}
