/** Time, randomness and the network's comings and goings, so that tests choose them. */

export interface Environment {
  /** Milliseconds since some start; never goes back. */
  now(): number;
  /** Milliseconds since 1970; it may step either way. */
  wall(): number;
  /** A random number of [0, 1). */
  dice(): number;
  /** Randomness fit for ids. */
  bytes(count: number): Uint8Array;
  /** Calls `then` once, later. Returns what prevents that. */
  after(ms: number, then: () => void): () => void;
  /** Whether the network is known to be off, and what tells of changes and of the end
   * of a sleep. Returns what ends the watch. */
  readonly isOnline: boolean;
  watch(handlers: NetworkHandlers): () => void;
}

export interface NetworkHandlers {
  online(): void;
  offline(): void;
  /** The page was hidden, or the machine slept: an open link may be dead. */
  awake(): void;
  /** The page is about to be frozen, or kept aside. */
  asleep?(): void;
}

/** `setTimeout` takes no more. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/** The browser's, or Node's. */
export function systemEnvironment(): Environment {
  return {
    now: () => performance.now(),
    wall: () => Date.now(),
    dice: () => Math.random(),
    bytes: (count) => crypto.getRandomValues(new Uint8Array(count)),
    after: (ms, then) => {
      const timer = setTimeout(then, Math.min(ms, MAX_TIMER_MS));
      return () => clearTimeout(timer);
    },
    get isOnline() {
      return globalThis.navigator?.onLine !== false;
    },
    watch,
  };
}

/** In Node there is nothing to watch. */
function watch({ online, offline, awake, asleep = () => undefined }: NetworkHandlers): () => void {
  const { window, document } = globalThis;
  if (window === undefined || document === undefined) return () => undefined;
  const visible = () => {
    if (document.visibilityState === "visible") awake();
  };
  const watched: [EventTarget, string, () => void][] = [
    [window, "online", online],
    [window, "offline", offline],
    [window, "pageshow", awake],
    [window, "pagehide", asleep],
    [document, "freeze", asleep],
    [document, "resume", awake],
    [document, "visibilitychange", visible],
  ];
  for (const [target, name, then] of watched) target.addEventListener(name, then);
  return () => {
    for (const [target, name, then] of watched) target.removeEventListener(name, then);
  };
}
