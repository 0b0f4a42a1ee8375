/**
 * What is watched inside a page, from before its first script on. Serialised and run in
 * the browser: it uses nothing from outside of itself.
 */
export interface Timings {
  /** Milliseconds from the navigation's start to the first message that was drawn. */
  firstMessage?: number;
}

declare global {
  var e2eProblem: ((problem: string) => void) | undefined;
  var e2eTimings: Timings;
}

export function watchPage(): void {
  globalThis.e2eTimings = {};
  document.addEventListener("securitypolicyviolation", (event) => {
    globalThis.e2eProblem?.(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`);
  });
  const told = new Set<string>();
  const tell = (problem: string): void => {
    if (told.has(problem)) return;
    told.add(problem);
    globalThis.e2eProblem?.(problem);
  };
  /** At every moment: each message once, by rising places. */
  const look = (): void => {
    const keys = new Set<string>();
    let before = 0;
    for (const row of document.querySelectorAll<HTMLElement>("[data-key]")) {
      const { key = "", seq } = row.dataset;
      if (keys.has(key)) tell(`shown twice: ${key}`);
      keys.add(key);
      if (seq === undefined) {
        before = Infinity;
        continue;
      }
      if (Number(seq) <= before) tell(`out of order: ${seq} after ${before}`);
      before = Number(seq);
    }
    if (before > 0) globalThis.e2eTimings.firstMessage ??= performance.now();
  };
  new MutationObserver(look).observe(document, { subtree: true, childList: true, attributes: true, attributeFilter: ["data-seq", "data-key"] });
}
