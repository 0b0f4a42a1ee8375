/** Which ids are well formed, and how fresh ones are made. */

import type { MessageId, UserId } from "./api.ts";

const USER = /^[A-Za-z0-9._@+-]{1,64}$/;
const CLIENT_ID = /^[A-Za-z0-9_-]{1,64}$/;

export function isUserId(text: string): text is UserId {
  return USER.test(text);
}

/** Whether `text` may name a message or a device. */
export function isClientId(text: string): text is MessageId {
  return CLIENT_ID.test(text);
}

/** A UUIDv7: the time, then randomness. `random` is 16 random bytes. */
export function messageId(wallMs: number, random: Uint8Array): MessageId {
  const bytes = Uint8Array.from(random);
  let time = Math.max(0, Math.floor(wallMs));
  for (let index = 5; index >= 0; index -= 1) {
    bytes[index] = time % 256;
    time = Math.floor(time / 256);
  }
  return uuid(bytes, 7);
}

/** A random UUIDv4. */
export function deviceId(random: Uint8Array): string {
  return uuid(Uint8Array.from(random), 4);
}

function uuid(bytes: Uint8Array, version: number): string {
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | (version << 4);
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  const hex = Array.from(bytes.subarray(0, 16), (byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}
