/** From the wire to what the application sees; none where a field is outside its rule. */

import type { Timestamp } from "@bufbuild/protobuf/wkt";

import type { Content, Conversation, Cursor, Message, Presence, RejectedReason, UserId } from "../api.ts";
import { NO_CURSOR } from "../cursor.ts";
import { DeferredReason, RejectedReason as WireRejectedReason } from "../generated/duologue/chat/v1/frames_pb.ts";
import {
  Availability,
  type Body,
  type Conversation as WireConversation,
  type Cursor as WireCursor,
  type Envelope,
  type UserPresence,
} from "../generated/duologue/chat/v1/model_pb.ts";
import { isClientId, isUserId } from "../ids.ts";

/** A time of the wire; 1970 if it is absent. */
export function toDate(time: Timestamp | undefined): Date {
  if (time === undefined) return new Date(0);
  return new Date(Number(time.seconds) * 1_000 + Math.floor(time.nanos / 1_000_000));
}

/** A duration of the wire; none if it is absent or negative. */
export function toMs(wire: { seconds: bigint; nanos: number } | undefined): number | undefined {
  if (wire === undefined || wire.seconds < 0n || wire.nanos < 0) return undefined;
  return Number(wire.seconds) * 1_000 + Math.ceil(wire.nanos / 1_000_000);
}

export function toContent(body: Body | undefined): Content {
  return body?.kind.case === "text" ? { kind: "text", text: body.kind.value } : { kind: "unknown" };
}

/** The message of an envelope, as `user` sees it. */
export function toMessage(envelope: Envelope, user: UserId): Message | undefined {
  return inConversation(envelope, envelope.sender === user ? envelope.recipient : envelope.sender);
}

/** The message of an envelope of the conversation with `peer`. */
export function inConversation(envelope: Envelope, peer: UserId): Message | undefined {
  const { seq, sender, messageId } = envelope;
  if (!isUserId(peer) || !isUserId(sender) || !isClientId(messageId) || seq === 0n) return undefined;
  return {
    peer,
    seq,
    messageId,
    sender,
    content: toContent(envelope.body),
    acceptedAt: toDate(envelope.acceptedAt),
  };
}

export function toPresence(presence: UserPresence | undefined): Presence | undefined {
  if (presence === undefined || !isUserId(presence.user)) return undefined;
  const online = presence.availability === Availability.ONLINE;
  const lastSeen = presence.lastSeen && { lastSeen: toDate(presence.lastSeen) };
  return { user: presence.user, online, ...lastSeen };
}

export function toConversation(wire: WireConversation): Conversation | undefined {
  if (!isUserId(wire.peer)) return undefined;
  const lastMessage = wire.lastMessage && inConversation(wire.lastMessage, wire.peer);
  return {
    peer: wire.peer,
    head: wire.head,
    ...(lastMessage && { lastMessage }),
    unread: wire.unread,
    own: toCursor(wire.ownCursor),
    peerCursor: toCursor(wire.peerCursor),
  };
}

function toCursor(wire: WireCursor | undefined): Cursor {
  return wire === undefined ? NO_CURSOR : { delivered: wire.delivered, read: wire.read };
}

export function toRejectedReason(reason: WireRejectedReason): RejectedReason {
  switch (reason) {
    case WireRejectedReason.INVALID:
      return "invalid";
    case WireRejectedReason.TOO_LONG:
      return "too-long";
    case WireRejectedReason.MESSAGE_ID_REUSED:
      return "message-id-reused";
    default:
      return "other";
  }
}

/** As in `rate-limited`. */
export function toDeferredReason(reason: DeferredReason): string {
  return (DeferredReason[reason] ?? "other").toLowerCase().replaceAll("_", "-");
}
