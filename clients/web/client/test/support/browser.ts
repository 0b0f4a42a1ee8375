/** Web Locks and BroadcastChannel of a browser, as far as they are used; tabs that freeze. */

import type { Locks } from "../../src/tabs/election.ts";
import type { Channel, Spoken } from "../../src/tabs/messages.ts";

interface Held {
  readonly tab: Tab;
  readonly steal: () => void;
}

interface Request {
  readonly tab: Tab;
  readonly grant: () => void;
}

/** What all tabs share. */
export class Browser {
  readonly tabs = new Set<Tab>();
  held: Held | undefined;
  queue: Request[] = [];

  tab(): Tab {
    const tab = new Tab(this);
    this.tabs.add(tab);
    return tab;
  }

  next(): void {
    if (this.held === undefined) this.queue.shift()?.grant();
  }
}

export class Tab {
  readonly #browser: Browser;
  readonly #channels = new Set<TestChannel>();
  #isFrozen = false;
  #isDead = false;
  #frozen: (() => void)[] = [];

  constructor(browser: Browser) {
    this.#browser = browser;
  }

  /** Nothing runs, but what is held is held on. */
  freeze(): void {
    this.#isFrozen = true;
  }

  thaw(): void {
    this.#isFrozen = false;
    for (const task of this.#frozen.splice(0)) task();
  }

  /** As by a crash: no code of it runs any more. */
  kill(): void {
    this.#isDead = true;
    this.#browser.tabs.delete(this);
    this.#browser.queue = this.#browser.queue.filter(({ tab }) => tab !== this);
    if (this.#browser.held?.tab === this) {
      this.#browser.held = undefined;
      this.#browser.next();
    }
  }

  /** Runs a task of this tab, when it may. */
  run(task: () => void): void {
    if (this.#isDead) return;
    if (this.#isFrozen) this.#frozen.push(task);
    else task();
  }

  get isAlive(): boolean {
    return !this.#isDead;
  }

  readonly locks: Locks = {
    request: (_name, { steal, signal }, granted) =>
      new Promise((resolve, reject) => {
        const abort = () => reject(new DOMException("aborted", "AbortError"));
        const grant = () => {
          const held: Held = { tab: this, steal: () => this.run(abort) };
          this.#browser.held = held;
          this.run(() => {
            void granted().then(() => {
              resolve(undefined);
              if (this.#browser.held !== held) return;
              this.#browser.held = undefined;
              this.#browser.next();
            });
          });
        };
        if (steal) {
          setImmediate(() => {
            this.#browser.held?.steal();
            grant();
          });
          return;
        }
        const request: Request = { tab: this, grant };
        signal?.addEventListener("abort", () => {
          this.#browser.queue = this.#browser.queue.filter((it) => it !== request);
          abort();
        });
        this.#browser.queue.push(request);
        setImmediate(() => this.#browser.next());
      }),
  };

  readonly channel = (): Channel => {
    const channel = new TestChannel((message) => {
      if (!this.isAlive) return;
      for (const tab of this.#browser.tabs) if (tab !== this) tab.#receive(message);
    });
    this.#channels.add(channel);
    return channel;
  };

  #receive(message: Spoken): void {
    for (const channel of this.#channels) setImmediate(() => this.run(() => channel.receive(message)));
  }
}

class TestChannel implements Channel {
  onmessage: Channel["onmessage"] = null;
  readonly #send: (message: Spoken) => void;
  #isClosed = false;

  constructor(send: (message: Spoken) => void) {
    this.#send = send;
  }

  postMessage(message: Spoken): void {
    // As browsers do: a copy, and an error for what cannot be copied.
    this.#send(structuredClone(message));
  }

  receive(data: Spoken): void {
    if (!this.#isClosed) this.onmessage?.({ data } as MessageEvent);
  }

  close(): void {
    this.#isClosed = true;
  }
}
