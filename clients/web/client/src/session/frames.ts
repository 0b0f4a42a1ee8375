/** What each frame from the server changes. */

import type { Message, MessageId, Seq, UserId } from "../api.ts";
import type { ConverseResponse } from "../generated/duologue/chat/v1/chat_pb.ts";
import {
  type CaughtUp,
  type Deferred,
  DeferredReason,
  type Goodbye,
  GoodbyeReason,
  type MessageDelivered,
  type Rejected,
  type Stored,
  type Welcome,
} from "../generated/duologue/chat/v1/frames_pb.ts";
import type { Pending } from "../lane.ts";
import { wasTriedBefore } from "../lane.ts";
import { HEARTBEAT_SLACK_MS, MAX_RETRY_AFTER_MS, MAX_TEXT_BYTES, RESEND_DELAY_MS } from "../limits.ts";
import { toDate, toDeferredReason, toMessage, toMs, toPresence, toRejectedReason } from "./convert.ts";
import type { Core } from "./core.ts";
import { onCursorRejected, onCursorStored, onReceipt } from "./cursors.ts";
import { ended } from "./links.ts";
import type { SavedMessage } from "./records.ts";
import { type At, type EndKind, lost } from "./types.ts";

type Frame = ConverseResponse["frame"];

/**
 * A frame came on the open link. One that breaks the contract ends the link: the
 * session connects again, from what it has.
 */
export function onFrame(core: Core, response: ConverseResponse, at: At): void {
  const fault = take(core, response.frame, at);
  if (fault !== undefined) ended(core, lost(fault), at);
}

/** Returns how the frame breaks the contract, if it does. */
function take(core: Core, frame: Frame, at: At): string | undefined {
  switch (frame.case) {
    // A kind that this version does not know.
    case undefined:
    case "heartbeat":
      return undefined;
    case "pong":
      core.probeUntil = undefined;
      core.pongAt = at.now;
      return undefined;
    case "goodbye":
      return void onGoodbye(core, frame.value, at);
    case "welcome":
      return onWelcome(core, frame.value, at);
    default:
      return core.isWelcomed ? takeWelcomed(core, frame, at) : "a frame came before Welcome";
  }
}

function takeWelcomed(core: Core, frame: Frame, at: At): string | undefined {
  switch (frame.case) {
    case "stored":
      return void onStored(core, frame.value, at);
    case "rejected":
      return void onRejected(core, frame.value, at);
    case "deferred":
      return void onDeferred(core, frame.value, at);
    case "messageDelivered":
      return onDelivered(core, frame.value, at);
    case "cursorStored":
      return void onCursorStored(core, frame.value, at);
    case "cursorRejected":
      return void onCursorRejected(core, frame.value, at);
    case "receiptAdvanced":
      return void onReceipt(core, frame.value, at);
    case "presenceReset":
      return void core.emit({ type: "presence-reset" });
    case "presenceChanged": {
      const presence = toPresence(frame.value.presence);
      if (presence !== undefined) core.emit({ type: "presence", presence });
      return undefined;
    }
    case "caughtUp":
      return void onCaughtUp(core, frame.value);
    default:
      return undefined;
  }
}

function onWelcome(core: Core, welcome: Welcome, at: At): string | undefined {
  if (core.phase.kind !== "open" || core.phase.welcomed) return "a second Welcome came";
  if (welcome.user !== core.user) {
    core.stop("other-user", `the token is that of ${welcome.user}`);
    return undefined;
  }
  core.sureNumber = core.connectNumber;
  core.saves.soon(at.now);
  if (core.historyId !== "" && core.historyId !== welcome.historyId) {
    ended(core, { kind: "history-changed", cause: "another history" }, at);
    return undefined;
  }
  if (core.historyId === "") {
    core.historyId = welcome.historyId;
    core.saves.need();
  }
  takeLimits(core, welcome);
  const { serverVersion, nodeId: node, limits } = welcome;
  const maxTextBytes = limits?.maxTextBytes || MAX_TEXT_BYTES;
  core.emit({ type: "connected", maxTextBytes, serverVersion, node });
  core.setPhase({ kind: "open", welcomed: true, caughtUp: false });
  return undefined;
}

function takeLimits(core: Core, welcome: Welcome): void {
  const heartbeat = toMs(welcome.heartbeatInterval);
  if (heartbeat) core.silenceMs = heartbeat + HEARTBEAT_SLACK_MS;
  const { limits } = welcome;
  if (limits) core.outbox.setLimits(limits.maxSendsInFlight, BigInt(limits.maxSearch));
}

function onStored(core: Core, stored: Stored, at: At): void {
  const pending = core.outbox.settle(stored.messageId);
  if (pending === undefined) return; // Found in a delivery before.
  const { peer, text } = pending;
  const { seq, messageId } = stored;
  core.outbox.saw(peer, seq, messageId);
  const acceptedAt = toDate(stored.acceptedAt);
  settled(core, pending, { seq, acceptedAt, duplicate: stored.duplicate });
  if (core.conversations.stored(peer, seq)) {
    show(core, { peer, seq, messageId, sender: core.user, content: { kind: "text", text }, acceptedAt });
  }
  core.saves.soon(at.now);
}

function onRejected(core: Core, rejected: Rejected, at: At): void {
  const pending = core.outbox.settle(rejected.messageId);
  if (pending === undefined) return;
  const { id: messageId, peer, text } = pending;
  const { field, detail } = rejected;
  const reason = toRejectedReason(rejected.reason);
  core.emit(
    { type: "rejected", messageId, peer, text, reason, field, detail },
    { kind: "settled", message: saved(pending) },
  );
  core.saves.soon(at.now);
}

function onDeferred(core: Core, deferred: Deferred, at: At): void {
  const { messageId, reason } = deferred;
  const state = core.outbox.defer(messageId, at.now + waitOf(deferred));
  if (state === undefined || state === "abandoned") {
    // Found elsewhere meanwhile, or given up; others must not wait for it.
    core.outbox.settle(messageId);
    core.abandonOnServer(messageId);
    return;
  }
  const peer = core.outbox.find(messageId)?.peer;
  if (peer === undefined) return;
  if (deferred.head !== undefined) core.conversations.exists(peer, deferred.head);
  core.emit({ type: "deferred", messageId, peer, reason: toDeferredReason(reason) });
  if (reason === DeferredReason.AFTER_SEQ_TOO_OLD) core.outbox.wantScan(peer);
  if (reason === DeferredReason.AFTER_SEQ_AHEAD) {
    ended(core, { kind: "history-changed", cause: "after_seq above the head" }, at);
  }
}

function onDelivered(core: Core, delivered: MessageDelivered, at: At): string | undefined {
  const message = delivered.envelope && toMessage(delivered.envelope, core.user);
  if (message === undefined) return "a delivered message is malformed";
  noteSlot(core, message);
  const arrival = core.conversations.arrive(message.peer, message.seq);
  if (arrival === "gap") return "a message is missing in the stream";
  if (arrival === "next") show(core, message);
  core.saves.soon(at.now);
  return undefined;
}

/**
 * A slot was seen: the own message in it is stored, and others that wait are not
 * there.
 */
export function noteSlot(core: Core, message: Message): void {
  const own: MessageId | undefined = message.sender === core.user ? message.messageId : undefined;
  const pending = core.outbox.saw(message.peer, message.seq, own);
  if (pending === undefined) return;
  if (pending.state === "deferred") core.abandonOnServer(pending.id);
  settled(core, pending, { ...message, duplicate: wasTriedBefore(pending) });
}

function settled(
  core: Core,
  pending: Pending,
  { seq, acceptedAt, duplicate }: { seq: bigint; acceptedAt: Date; duplicate: boolean },
): void {
  const { id: messageId, peer } = pending;
  core.emit(
    { type: "stored", messageId, peer, seq, acceptedAt, duplicate },
    { kind: "settled", message: saved(pending) },
  );
}

/** A message has its place: the position has moved to it. */
function show(core: Core, message: Message): void {
  const { peer, seq, sender } = message;
  // In notes to oneself every message reaches its recipient so.
  const deliver = sender !== core.user || sender === peer;
  core.emit({ type: "message", message }, { kind: "position", peer, seq, deliver }, keepStart(core, peer, seq));
}

/**
 * Without a token or a position a device begins where the user's other devices have come
 * to. So one that was killed before either was kept would skip what it had not shown:
 * where it began is kept before its first message is told. Returns the mark of that save.
 */
function keepStart(core: Core, peer: UserId, first: Seq): number {
  const conversation = core.conversations.touch(peer);
  if (core.keptToken !== "" || conversation.kept !== undefined) return 0;
  conversation.kept = first - 1n;
  return core.saves.need();
}

function onCaughtUp(core: Core, { syncToken: token }: CaughtUp): void {
  core.backoff.reset();
  core.token = token;
  core.emit({ type: "caught-up" }, { kind: "token", token });
  core.setPhase({ kind: "open", welcomed: true, caughtUp: true });
}

function onGoodbye(core: Core, goodbye: Goodbye, at: At): void {
  const reason = (GoodbyeReason[goodbye.reason] ?? "unspecified").toLowerCase();
  const cause = goodbye.detail === "" ? reason : `${reason}: ${goodbye.detail}`;
  ended(core, { kind: endOf(goodbye.reason), cause, retryAfterMs: toMs(goodbye.retryAfter) }, at);
}

function endOf(reason: GoodbyeReason): EndKind {
  switch (reason) {
    case GoodbyeReason.SUPERSEDED:
      return "superseded";
    case GoodbyeReason.UNAUTHENTICATED:
      return "unauthenticated";
    case GoodbyeReason.HISTORY_CHANGED:
      return "history-changed";
    // Trying again with the same `Hello` would not help.
    case GoodbyeReason.PROTOCOL_ERROR:
      return "refused";
    default:
      return "lost";
  }
}

/**
 * How long a deferred message is held. Behind another one, that one's delay counts.
 */
function waitOf(deferred: Deferred): number {
  if (deferred.reason === DeferredReason.BEHIND_EARLIER) return 0;
  return Math.min(toMs(deferred.retryAfter) ?? RESEND_DELAY_MS, MAX_RETRY_AFTER_MS);
}

export function saved({ id, peer, text, writtenAt, order, afterSeq }: Pending): SavedMessage {
  return { id, peer, text, writtenAt, order, afterSeq };
}

