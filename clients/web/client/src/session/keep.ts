/**
 * What outlives the process, and when it may be forgotten.
 *
 * A position, a cursor, a sync token or the end of a message's life is kept only
 * after the application has taken the event that tells it. So a crash repeats
 * events, and never skips one.
 */

import type { UserId } from "../api.ts";
import type { ConversationState } from "../conversations.ts";
import { cursor, furthest, NO_CURSOR } from "../cursor.ts";
import { MAX_POSITIONS } from "../limits.ts";
import type { Core } from "./core.ts";
import { wantCursor } from "./cursors.ts";
import { saved } from "./frames.ts";
import type { Saved, SavedConversation, SavedMessage } from "./records.ts";
import type { Handover } from "./types.ts";

/** Puts back what was kept. */
export function restore(core: Core, { device, conversations, messages }: Saved): void {
  if (device.isHistoryUntold) core.tellHistory();
  // The least recently active first, so that activity is as it was.
  for (const it of [...conversations].reverse()) restoreConversation(core.conversations.touch(it.peer), it);
  for (const { id, peer, text, writtenAt, afterSeq } of messages) {
    core.outbox.push({ id, peer, text, writtenAt, afterSeq, tried: true, mark: 0 });
  }
}

function restoreConversation(conversation: ConversationState, it: SavedConversation): void {
  conversation.position = it.position;
  conversation.kept = it.position;
  conversation.known = it.known;
  conversation.wanted = cursor(it.delivered, it.read);
  conversation.knownOwn = conversation.wanted;
  conversation.confirmed = it.unconfirmed ? NO_CURSOR : conversation.wanted;
  conversation.asked = conversation.confirmed;
  conversation.peerCursor = cursor(it.peerDelivered, it.peerRead);
  conversation.knownPeer = conversation.peerCursor;
}

/** The application has taken every event up to this number. */
export function handedOver(core: Core, upTo: number, now: number): void {
  const count = core.handovers.findIndex(({ number }) => number > upTo);
  for (const { handover } of core.handovers.splice(0, count < 0 ? core.handovers.length : count)) {
    keep(core, handover, now);
  }
}

function keep(core: Core, handover: Handover, now: number): void {
  core.saves.soon(now);
  if (handover.kind === "token") {
    core.keptToken = handover.token;
    return;
  }
  if (handover.kind === "history") core.untakenHistories -= 1;
  if (handover.kind === "settled" || handover.kind === "history") return;
  const conversation = core.conversations.get(handover.peer);
  if (conversation === undefined) return;
  switch (handover.kind) {
    case "position":
      conversation.kept = handover.seq;
      if (handover.deliver) wantCursor(core, handover.peer, { delivered: handover.seq, read: 0n }, now);
      break;
    case "own-cursor":
      conversation.knownOwn = furthest(conversation.knownOwn, handover.cursor);
      break;
    case "peer-cursor":
      conversation.knownPeer = furthest(conversation.knownPeer, handover.cursor);
      break;
  }
}

/** What shall be there after a restart. */
export function snapshot(core: Core): Saved {
  const { deviceId, connectNumber, sureNumber, historyId, keptToken: syncToken } = core;
  return {
    device: {
      deviceId,
      connectNumber,
      sureNumber,
      historyId,
      isHistoryUntold: core.untakenHistories > 0,
      syncToken,
    },
    conversations: savedConversations(core),
    messages: savedMessages(core),
  };
}

/** The most recently active, and every one with an unconfirmed cursor. */
function savedConversations(core: Core): SavedConversation[] {
  const all = core.conversations.byActivity();
  return all
    .filter(([, conversation], place) => place < MAX_POSITIONS || conversation.isUnconfirmed)
    .map(([peer, conversation]) => savedConversation(peer, conversation));
}

function savedConversation(peer: UserId, conversation: ConversationState): SavedConversation {
  return {
    peer,
    position: conversation.kept,
    known: conversation.known,
    delivered: conversation.knownOwn.delivered,
    read: conversation.knownOwn.read,
    unconfirmed: conversation.isUnconfirmed,
    peerDelivered: conversation.knownPeer.delivered,
    peerRead: conversation.knownPeer.read,
    active: conversation.active,
  };
}

/**
 * What is settled stays until the application knows it: sent again, it is answered
 * as a duplicate.
 */
function savedMessages(core: Core): SavedMessage[] {
  const settled = core.handovers.flatMap(({ handover }) =>
    handover.kind === "settled" ? [handover.message] : [],
  );
  const unsettled = core.outbox.messages().filter(({ state }) => state !== "abandoned");
  return [...settled, ...unsettled.map(saved)];
}
