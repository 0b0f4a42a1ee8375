/** The client's own limits, and those of the contract that it needs; all in one place. */

/** Messages that are not settled, at most; sending more is refused. */
export const MAX_OUTBOX = 1_024;
/** Events that wait for the application, before frames are held back. */
export const EVENT_QUEUE = 256;
/** Frames that wait to be read, and their bytes; beyond that the link is given up. */
export const MAX_HELD_FRAMES = 4_096;
export const MAX_HELD_BYTES = 8 * 1024 * 1024;
/** Bytes that wait in a WebSocket before no more frames are handed to it. */
export const MAX_BUFFERED_BYTES = 256 * 1024;
/** Conversations whose state is kept in memory; the least active are forgotten. */
export const MAX_CONVERSATIONS = 10_000;
/** The encoded positions and cursors of one `Hello`; a token must fit beside them. */
export const MAX_HELLO_ITEMS_BYTES = 56 * 1024;

/** Reconnecting backs off from this delay ... */
export const BACKOFF_MIN_MS = 100;
/** ... doubling up to this one; each delay is drawn between zero and that. */
export const BACKOFF_MAX_MS = 30_000;
/** A server's "retry after" counts up to this long. */
export const MAX_RETRY_AFTER_MS = 10 * 60_000;
/** A deferred message without a delay of its own is sent again after this long. */
export const RESEND_DELAY_MS = 100;
/** A refused cursor move, or a failed look through a conversation, is tried again
 * after this long. */
export const RETRY_DELAY_MS = 1_000;
/** Cursor moves go up at most this often; those between are sent as one. */
export const CURSOR_INTERVAL_MS = 50;
/** What is safe to lose (progress) is saved at most this often. */
export const SAVE_INTERVAL_MS = 1_000;

/** A link must be open, token included, within this time; a token must come within it
 * for a call, too. */
export const OPEN_TIMEOUT_MS = 10_000;
/** `Welcome` must come within this time. */
export const WELCOME_TIMEOUT_MS = 10_000;
/** A unary call must be answered within this time. */
export const CALL_TIMEOUT_MS = 10_000;
/** The heartbeat interval until `Welcome` tells it. */
export const HEARTBEAT_INTERVAL_MS = 25_000;
/** A stream that is silent this much longer than the heartbeat interval is dead. */
export const HEARTBEAT_SLACK_MS = 10_000;
/** A `Ping` after a sleep, or without a network, must be answered within this time of the
 * last frame; without a network another follows when nothing came for as long. */
export const PROBE_TIMEOUT_MS = 5_000;
/** IndexedDB must open within this time. */
export const STORE_TIMEOUT_MS = 5_000;
/** `close` waits for answers this long. */
export const CLOSE_TIMEOUT_MS = 5_000;
/** After WebSocket failed where gRPC-Web works, it is tried again after this long. */
export const WEBSOCKET_RETRY_MS = 10 * 60_000;
/** Where a WebSocket has worked, it is tried so often before gRPC-Web is tried once. */
export const WEBSOCKET_TRIES = 3;

/** Messages asked for at once when looking through a conversation. */
export const SCAN_PAGE = 200;

/** The contract: the longest text, in bytes of UTF-8. */
export const MAX_TEXT_BYTES = 8_192;
/** The contract: positions, and cursors, in one `Hello`. */
export const MAX_POSITIONS = 500;
/** The contract: the program's name and version, in bytes. */
export const MAX_CLIENT_NAME_BYTES = 64;
/** The contract: how far the server looks for an earlier copy. */
export const MAX_SEARCH = 256n;
/** The contract: sends without an answer. */
export const MAX_SENDS_IN_FLIGHT = 256;

/** Tabs: a tab asks the owner for a sign of life this often ... */
export const OWNER_PROBE_MS = 5_000;
/** ... and takes over when none has come within this time. */
export const OWNER_TIMEOUT_MS = 4_000;
