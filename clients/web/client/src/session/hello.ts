/** The first frame up: what the device has. */

import { create, toBinary } from "@bufbuild/protobuf";

import {
  type AdvanceCursor,
  AdvanceCursorSchema,
  type Hello,
  HelloSchema,
  type Position,
  PositionSchema,
} from "../generated/duologue/chat/v1/frames_pb.ts";
import { MAX_CLIENT_NAME_BYTES, MAX_HELLO_ITEMS_BYTES, MAX_POSITIONS } from "../limits.ts";
import type { Core } from "./core.ts";
import { advanceCursor } from "./cursors.ts";

/**
 * The first frame of the wanted link. Cursors that it repeats count as asked for;
 * those for which it has no room follow as frames.
 */
export function hello(core: Core): Hello {
  const room = new Room(MAX_HELLO_ITEMS_BYTES);
  const cursors = helloCursors(core, room);
  return create(HelloSchema, {
    deviceId: core.deviceId,
    connectNumber: BigInt(core.connectNumber),
    historyId: core.historyId,
    syncToken: core.token,
    positions: helloPositions(core, room),
    cursors,
    clientName: shortened(core.options.clientName),
    clientVersion: shortened(core.options.clientVersion),
  });
}

function helloPositions(core: Core, room: Room): Position[] {
  const positions: Position[] = [];
  for (const [peer, { position }] of core.conversations.byActivity()) {
    if (position === undefined) continue;
    const named = create(PositionSchema, { peer, seq: position });
    if (positions.length >= MAX_POSITIONS || !room.take(toBinary(PositionSchema, named))) break;
    positions.push(named);
  }
  return positions;
}

function helloCursors(core: Core, room: Room): AdvanceCursor[] {
  // Positions matter more: half of the room at most.
  const half = new Room(room.left / 2);
  const cursors: AdvanceCursor[] = [];
  for (const [peer, conversation] of core.conversations.byActivity()) {
    if (!conversation.isUnconfirmed) continue;
    const move = advanceCursor(peer, conversation.wanted);
    const bytes = toBinary(AdvanceCursorSchema, move);
    if (cursors.length < MAX_POSITIONS && half.take(bytes)) {
      conversation.asked = conversation.wanted;
      room.take(bytes);
      cursors.push(move);
    } else {
      core.cursorsDue.add(peer);
    }
  }
  return cursors;
}

/** Bytes that are left. */
class Room {
  left: number;

  constructor(bytes: number) {
    this.left = bytes;
  }

  /** Takes room for one repeated message: its bytes, tag and length. */
  take(message: Uint8Array): boolean {
    const tagAndLength = 4;
    const left = this.left - message.length - tagAndLength;
    if (left < 0) return false;
    this.left = left;
    return true;
  }
}

/** At most what the contract takes, and no half characters. */
function shortened(name: string): string {
  let short = "";
  let bytes = 0;
  for (const character of name) {
    bytes += new TextEncoder().encode(character).length;
    if (bytes > MAX_CLIENT_NAME_BYTES) break;
    short += character;
  }
  return short;
}
