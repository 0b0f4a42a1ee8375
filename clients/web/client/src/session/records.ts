/**
 * What is kept, as records under keys: one for the device, one for each
 * conversation and one for each message. Numbers of 64 bits are decimal text, so
 * that any store can hold them.
 */

import type { Seq, UserId } from "../api.ts";
import { isClientId, isUserId } from "../ids.ts";

/** The format of the records; a device of another one is not read. */
const FORMAT = 1;

export interface SavedDevice {
  readonly deviceId: string;
  /** The last connect number that may have been used. */
  readonly connectNumber: number;
  /** The last one that a server is known to have taken. */
  readonly sureNumber: number;
  /** The history that token, positions and `afterSeq`s belong to; may be empty. */
  readonly historyId: string;
  /** The application has not been told yet that this is another history than before. */
  readonly isHistoryUntold: boolean;
  /** The last sync token before which everything was handed over; may be empty. */
  readonly syncToken: string;
}

export interface SavedConversation {
  readonly peer: UserId;
  /** The last sequence handed over without a gap; none if nothing was. */
  readonly position: Seq | undefined;
  readonly known: Seq;
  readonly delivered: Seq;
  readonly read: Seq;
  /** The server has not confirmed `delivered` and `read`. */
  readonly unconfirmed: boolean;
  readonly peerDelivered: Seq;
  readonly peerRead: Seq;
  /** Higher: more recently active. */
  readonly active: number;
}

/** What is sent again is exactly this. */
export interface SavedMessage {
  readonly id: string;
  readonly peer: UserId;
  readonly text: string;
  readonly writtenAt: number;
  readonly order: number;
  readonly afterSeq: Seq;
}

export interface Saved {
  readonly device: SavedDevice;
  readonly conversations: readonly SavedConversation[];
  readonly messages: readonly SavedMessage[];
}

type RecordValue = Readonly<Record<string, string | number | boolean>>;

export function newDevice(deviceId: string): Saved {
  const device = { deviceId, connectNumber: 0, sureNumber: 0, historyId: "", isHistoryUntold: false, syncToken: "" };
  return { device, conversations: [], messages: [] };
}

/** The records, by key. */
export function toRecords(saved: Saved): Map<string, RecordValue> {
  const records = new Map<string, RecordValue>([["device", { format: FORMAT, ...saved.device }]]);
  for (const it of saved.conversations) {
    const { position, known, delivered, read, peerDelivered, peerRead, ...rest } = it;
    const seqs = { known, delivered, read, peerDelivered, peerRead };
    const place: RecordValue = position === undefined ? {} : { position: position.toString() };
    const texts = Object.fromEntries(Object.entries(seqs).map(([name, seq]) => [name, seq.toString()]));
    records.set(`conversation/${it.peer}`, { ...rest, ...place, ...texts });
  }
  for (const it of saved.messages) {
    records.set(`message/${it.id}`, { ...it, afterSeq: it.afterSeq.toString() });
  }
  return records;
}

/**
 * What was kept; none if nothing was. A record that is not understood is left out:
 * the worst that follows is that something is fetched, or shown, once more. But an
 * unreadable device is an error: its messages' `afterSeq` would mean nothing.
 */
export function fromRecords(records: ReadonlyMap<string, unknown>): Saved | undefined {
  const device = records.get("device");
  if (device === undefined) return undefined;
  const saved = { device: toDevice(fields(device)), conversations: [], messages: [] } as {
    device: SavedDevice;
    conversations: SavedConversation[];
    messages: SavedMessage[];
  };
  for (const [key, value] of records) {
    if (key.startsWith("conversation/")) saved.conversations.push(...toConversation(fields(value)));
    if (key.startsWith("message/")) saved.messages.push(...toMessage(fields(value)));
  }
  saved.conversations.sort((one, other) => other.active - one.active);
  saved.messages.sort((one, other) => one.order - other.order);
  return saved;
}

/** Reads the fields of a record, whatever it is. */
function fields(value: unknown) {
  const record = (typeof value === "object" && value !== null ? value : {}) as Record<string, unknown>;
  return {
    text: (name: string) => (typeof record[name] === "string" ? record[name] : ""),
    number: (name: string) => (typeof record[name] === "number" ? record[name] : 0),
    flag: (name: string) => record[name] === true,
    has: (name: string) => record[name] !== undefined,
    seq: (name: string): Seq => (/^\d{1,20}$/.test(String(record[name])) ? BigInt(String(record[name])) : 0n),
  };
}

type Fields = ReturnType<typeof fields>;

function toDevice(it: Fields): SavedDevice {
  const deviceId = it.text("deviceId");
  if (it.number("format") !== FORMAT || !isClientId(deviceId)) {
    throw new Error(`the kept state is not of format ${FORMAT}`);
  }
  return {
    deviceId,
    connectNumber: it.number("connectNumber"),
    sureNumber: it.number("sureNumber"),
    historyId: it.text("historyId"),
    isHistoryUntold: it.flag("isHistoryUntold"),
    syncToken: it.text("syncToken"),
  };
}

function toConversation(it: Fields): SavedConversation[] {
  const peer = it.text("peer");
  if (!isUserId(peer)) return [];
  return [
    {
      peer,
      position: it.has("position") ? it.seq("position") : undefined,
      known: it.seq("known"),
      delivered: it.seq("delivered"),
      read: it.seq("read"),
      unconfirmed: it.flag("unconfirmed"),
      peerDelivered: it.seq("peerDelivered"),
      peerRead: it.seq("peerRead"),
      active: it.number("active"),
    },
  ];
}

function toMessage(it: Fields): SavedMessage[] {
  const [id, peer] = [it.text("id"), it.text("peer")];
  if (!isClientId(id) || !isUserId(peer)) return [];
  const [text, writtenAt, order] = [it.text("text"), it.number("writtenAt"), it.number("order")];
  return [{ id, peer, text, writtenAt, order, afterSeq: it.seq("afterSeq") }];
}
