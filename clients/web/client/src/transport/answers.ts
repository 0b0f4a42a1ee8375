/** The answers of unary calls, as the frames that `Converse` would have sent. */

import { create } from "@bufbuild/protobuf";
import type { Duration } from "@bufbuild/protobuf/wkt";
import { DurationSchema } from "@bufbuild/protobuf/wkt";

import {
  type AdvanceCursorResponse,
  type ConverseResponse,
  ConverseResponseSchema,
  type SendMessageResponse,
} from "../generated/duologue/chat/v1/chat_pb.ts";
import {
  CursorRejectedReason,
  CursorRejectedSchema,
  CursorStoredSchema,
  DeferredReason,
  DeferredSchema,
  RejectedReason,
  RejectedSchema,
  type SendMessage,
  StoredSchema,
} from "../generated/duologue/chat/v1/frames_pb.ts";
import type { DuologueError } from "../errors.ts";
import { RETRY_DELAY_MS } from "../limits.ts";

export function down(frame: ConverseResponse["frame"]): ConverseResponse {
  return create(ConverseResponseSchema, { frame });
}

export function stored(peer: string, answer: SendMessageResponse): ConverseResponse {
  const { messageId, seq, duplicate, acceptedAt } = answer;
  const value = create(StoredSchema, { peer, messageId, seq, duplicate, ...(acceptedAt && { acceptedAt }) });
  return down({ case: "stored", value });
}

/**
 * Final only where the server itself says so (it always gives a reason): a proxy's
 * refusal is not true of every try.
 */
export function sendRefused({ peer, messageId = "" }: SendMessage, failure: DuologueError): ConverseResponse {
  const final = failure.reason === undefined ? undefined : FINAL.get(failure.code);
  if (final !== undefined) {
    // A text that was taken here can only be too long there.
    const reason = failure.field === "body.text" ? RejectedReason.TOO_LONG : final;
    const { field = "", message: detail } = failure;
    const value = create(RejectedSchema, { peer, messageId, reason, field, detail });
    return down({ case: "rejected", value });
  }
  const reason = (failure.reason && DEFERRED.get(failure.code)) || DeferredReason.UNAVAILABLE;
  const retryAfter = toDuration(failure.retryAfterMs ?? RETRY_DELAY_MS);
  return down({ case: "deferred", value: create(DeferredSchema, { peer, messageId, reason, retryAfter }) });
}

export function cursorStored(peer: string, { delivered, read }: AdvanceCursorResponse): ConverseResponse {
  return down({ case: "cursorStored", value: create(CursorStoredSchema, { peer, cursor: { delivered, read } }) });
}

export function cursorRefused(peer: string, failure: DuologueError): ConverseResponse {
  const known = failure.reason === undefined ? undefined : CURSOR.get(failure.code);
  const reason = known ?? CursorRejectedReason.UNAVAILABLE;
  const { field = "", message: detail } = failure;
  return down({ case: "cursorRejected", value: create(CursorRejectedSchema, { peer, reason, field, detail }) });
}

const FINAL = new Map([
  ["invalid_argument", RejectedReason.INVALID],
  ["already_exists", RejectedReason.MESSAGE_ID_REUSED],
]);

const DEFERRED = new Map([
  ["out_of_range", DeferredReason.AFTER_SEQ_TOO_OLD],
  ["failed_precondition", DeferredReason.AFTER_SEQ_AHEAD],
  ["resource_exhausted", DeferredReason.RATE_LIMITED],
  ["aborted", DeferredReason.CONTENDED],
]);

const CURSOR = new Map([
  ["invalid_argument", CursorRejectedReason.INVALID],
  ["failed_precondition", CursorRejectedReason.ABOVE_HEAD],
]);

function toDuration(ms: number): Duration {
  return create(DurationSchema, { seconds: BigInt(Math.floor(ms / 1_000)), nanos: Math.floor(ms % 1_000) * 1_000_000 });
}
