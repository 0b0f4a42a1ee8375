/** Messages and states for the tests of the model. */
import type { Event, Message } from "../../src/api.ts";
import { initial, reduce, type Action } from "../../src/model/reduce.ts";
import type { Chat, State } from "../../src/model/types.ts";

export const START = Date.UTC(2026, 10, 25, 12, 0, 0);
export const ME = "ada";

export function message(seq: number, sender = "bob", text = `text ${seq}`): Message {
  return {
    peer: "bob", seq: BigInt(seq), messageId: `m${seq}`, sender, content: { kind: "text", text },
    acceptedAt: new Date(START + seq * 60_000),
  };
}

export function messages(from: number, to: number, sender = "bob"): Message[] {
  return Array.from({ length: to - from + 1 }, (_, i) => message(from + i, sender));
}

export function seqs(list: readonly Message[]): number[] {
  return list.map((m) => Number(m.seq));
}

export function event(value: Event): Action {
  return { type: "event", event: value, deviceNow: START };
}

export function after(...actions: Action[]): State {
  return actions.reduce(reduce, { ...initial(ME), connection: { kind: "connected" } });
}

export function chatOf(state: State, peer = "bob"): Chat {
  const chat = state.chats.get(peer);
  if (chat === undefined) throw new Error(`no chat with ${peer}`);
  return chat;
}

export function listed(head: number, unread: number, read: number): Action {
  return {
    type: "listed", next: undefined,
    conversations: [{
      peer: "bob", head: BigInt(head), unread: BigInt(unread), lastMessage: message(head),
      own: { delivered: BigInt(head), read: BigInt(read) }, peerCursor: { delivered: 0n, read: 0n },
    }],
  };
}

export function page(from: number, to: number, head = to): Action {
  return { type: "page", peer: "bob", messages: messages(from, to).reverse(), head: BigInt(head) };
}
