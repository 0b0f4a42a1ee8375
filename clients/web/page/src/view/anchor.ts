/**
 * Keeps the reader's place in a scrolled list of `[data-key]` rows: the first row in
 * view, and how far below the edge it is; or the end.
 */
const AT_END_PX = 32;
/** Where a row that is gone to stands below the upper edge. */
const MARGIN_PX = 72;

export class Anchor {
  /** The reader is at the end. */
  atEnd = true;
  /** Of the first message in view. */
  seq: string | undefined;
  private key: string | null = null;
  private top = 0;

  constructor(private readonly scroller: () => HTMLElement | null) {}

  /** Notes where the reader is. */
  remember(): void {
    const scroller = this.scroller();
    if (scroller === null) return;
    this.atEnd = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < AT_END_PX;
    const edge = scroller.getBoundingClientRect().top;
    this.key = null;
    for (const row of rows(scroller)) {
      const box = row.getBoundingClientRect();
      if (box.bottom <= edge) continue;
      this.key = row.dataset["key"] ?? null;
      this.seq = row.dataset["seq"];
      this.top = box.top - edge;
      return;
    }
  }

  /** Brings the reader back to where they were. */
  restore(): void {
    const scroller = this.scroller();
    if (scroller === null) return;
    if (this.atEnd) {
      scroller.scrollTop = scroller.scrollHeight;
      return;
    }
    const row = rows(scroller).find((element) => element.dataset["key"] === this.key);
    if (row === undefined) return;
    const moved = row.getBoundingClientRect().top - scroller.getBoundingClientRect().top - this.top;
    if (Math.abs(moved) >= 1) scroller.scrollTop += moved;
  }

  end(): void {
    this.atEnd = true;
    this.restore();
  }

  /** Shows a row near the upper edge. */
  show(selector: string): void {
    const scroller = this.scroller();
    const row = scroller?.querySelector(selector);
    if (scroller === null || row === null || row === undefined) return;
    scroller.scrollTop += row.getBoundingClientRect().top - scroller.getBoundingClientRect().top - MARGIN_PX;
    this.remember();
  }

  /** The newest message that is wholly in view. */
  lastSeqInView(scroller: HTMLElement): bigint | null {
    const edge = scroller.getBoundingClientRect().bottom;
    const seen = rows(scroller).filter((row) => row.dataset["seq"] !== undefined && row.getBoundingClientRect().bottom <= edge + 1);
    const last = seen[seen.length - 1];
    return last === undefined ? null : BigInt(last.dataset["seq"] ?? "0");
  }
}

function rows(scroller: HTMLElement): HTMLElement[] {
  return [...scroller.querySelectorAll<HTMLElement>("[data-key]")];
}
