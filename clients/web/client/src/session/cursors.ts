/** Both users' cursors: what is asked of the server, and what it tells. */

import { create } from "@bufbuild/protobuf";

import type { Cursor, UserId } from "../api.ts";
import { covers, cursor, furthest } from "../cursor.ts";
import {
  type AdvanceCursor,
  AdvanceCursorSchema,
  type CursorRejected,
  CursorRejectedReason,
  type CursorStored,
  type ReceiptAdvanced,
} from "../generated/duologue/chat/v1/frames_pb.ts";
import { isUserId } from "../ids.ts";
import { CURSOR_INTERVAL_MS, RETRY_DELAY_MS } from "../limits.ts";
import type { Core } from "./core.ts";
import type { At } from "./types.ts";

/** Moves the user's cursor; false if it is there already. */
export function wantCursor(core: Core, peer: UserId, asked: Cursor, now: number): boolean {
  const conversation = core.conversations.touch(peer);
  conversation.knownOwn = furthest(conversation.knownOwn, asked);
  if (covers(conversation.wanted, asked)) return false;
  conversation.wanted = furthest(conversation.wanted, asked);
  core.cursorsDue.add(peer);
  core.saves.soon(now);
  return true;
}

/** The next cursor move to send, if one is due. */
export function nextCursor(core: Core, now: number): AdvanceCursor | undefined {
  if (core.cursorsAt > now) return undefined;
  for (const peer of core.cursorsDue) {
    core.cursorsDue.delete(peer);
    if (core.cursorsDue.size === 0) core.cursorsAt = now + CURSOR_INTERVAL_MS;
    const conversation = core.conversations.get(peer);
    if (conversation?.isToBeAsked) {
      conversation.asked = conversation.wanted;
      return advanceCursor(peer, conversation.wanted);
    }
  }
  return undefined;
}

export function onCursorStored(core: Core, stored: CursorStored, at: At): void {
  if (!isUserId(stored.peer) || stored.cursor === undefined) return;
  // It may be further on than what was asked for: another device has moved it.
  onOwnReceipt(core, stored.peer, cursor(stored.cursor.delivered, stored.cursor.read));
  core.saves.soon(at.now);
}

export function onCursorRejected(core: Core, rejected: CursorRejected, at: At): void {
  const conversation = core.conversations.get(rejected.peer);
  if (conversation === undefined) return;
  conversation.asked = conversation.confirmed;
  if (rejected.reason === CursorRejectedReason.UNAVAILABLE) {
    core.cursorsDue.add(rejected.peer);
    core.cursorsAt = Math.max(core.cursorsAt, at.now + RETRY_DELAY_MS);
    return;
  }
  // It will never be taken; what comes after it may.
  conversation.wanted = conversation.confirmed;
  conversation.knownOwn = conversation.confirmed;
  core.saves.soon(at.now);
}

export function onReceipt(core: Core, receipt: ReceiptAdvanced, at: At): void {
  if (!isUserId(receipt.peer) || !isUserId(receipt.user) || receipt.cursor === undefined) return;
  const told = cursor(receipt.cursor.delivered, receipt.cursor.read);
  if (receipt.user === core.user) onOwnReceipt(core, receipt.peer, told);
  else onPeerReceipt(core, receipt.peer, told);
  core.saves.soon(at.now);
}

function onOwnReceipt(core: Core, peer: UserId, told: Cursor): void {
  const conversation = core.conversations.touch(peer);
  const isNews = !covers(furthest(conversation.confirmed, conversation.wanted), told);
  conversation.confirmed = furthest(conversation.confirmed, told);
  conversation.wanted = furthest(conversation.wanted, told);
  if (!isNews) return;
  const cursor = conversation.wanted;
  core.emit({ type: "own-cursor", peer, ...cursor }, { kind: "own-cursor", peer, cursor });
}

function onPeerReceipt(core: Core, peer: UserId, told: Cursor): void {
  const conversation = core.conversations.touch(peer);
  if (covers(conversation.peerCursor, told)) return;
  const cursor = furthest(conversation.peerCursor, told);
  conversation.peerCursor = cursor;
  core.emit({ type: "receipt", peer, ...cursor }, { kind: "peer-cursor", peer, cursor });
}

export function advanceCursor(peer: UserId, { delivered, read }: Cursor): AdvanceCursor {
  return create(AdvanceCursorSchema, { peer, delivered, ...(read > 0n ? { read } : {}) });
}
