/**
 * The judge at the end of each run: what the server keeps for both users, what every
 * page shows, and what was written must be the same. Nothing lost, none twice, one order.
 */
import assert from "node:assert/strict";
import type { Page } from "playwright-core";
import { history } from "./history.ts";
import { shownBy, type Shown } from "./shown.ts";

export interface Talk {
  readonly url: string;
  readonly users: readonly [string, string];
  /** Pages that show the conversation, by whose they are. */
  readonly pages: readonly { readonly name: string; readonly page: Page }[];
  /** What each of them wrote, in order; texts are different from each other. */
  readonly written: Readonly<Record<string, readonly string[]>>;
}

export async function assertOneTruth({ url, users, pages, written }: Talk): Promise<Shown[]> {
  const [one, other] = users;
  const kept = await history(url, one, other);
  assert.deepEqual(await history(url, other, one), kept, "both users have the same history");
  assert.deepEqual(kept.map(({ seq }) => seq), kept.map((_, i) => i + 1), "the history has no gap");
  for (const user of users) {
    const texts = kept.filter(({ key }) => key.startsWith(`${user}/`)).map(({ text }) => text);
    assert.deepEqual(texts, written[user] ?? [], `${user}: everything once, as it was written, in order`);
  }
  for (const { name, page } of pages) {
    assert.deepEqual(await shownBy(page), kept, `${name} is shown what is kept`);
  }
  return kept;
}
