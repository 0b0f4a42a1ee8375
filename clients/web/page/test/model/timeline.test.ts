import assert from "node:assert/strict";
import { test } from "node:test";
import { complete, extendDown, extendUp, holds, indexAt, merge, newestRun, spanAround, tailSpan } from "../../src/model/timeline.ts";
import { messages, seqs } from "./support.ts";

test("pages and live messages become one run, each seq once", () => {
  const shuffled = [...messages(1, 40)].sort((a, b) => Number((a.seq * 7n) % 41n) - Number((b.seq * 7n) % 41n));
  let here = merge([], shuffled.slice(0, 13));
  here = merge(here, shuffled.slice(5, 30));
  here = merge(here, shuffled.slice(20));
  here = merge(here, [...shuffled, ...shuffled]);
  assert.deepEqual(seqs(here), seqs(messages(1, 40)));
});

test("what is here already is not drawn anew", () => {
  const here = messages(3, 9);
  assert.equal(merge(here, messages(4, 8)), here);
  const longer = merge(here, messages(1, 12));
  assert.equal(longer[2], here[0]);
});

test("places are found, present or not", () => {
  const here = [...messages(3, 5), ...messages(9, 10)];
  assert.equal(indexAt(here, 1n), 0);
  assert.equal(indexAt(here, 5n), 2);
  assert.equal(indexAt(here, 6n), 3);
  assert.equal(indexAt(here, 11n), 5);
  assert.equal(holds(here, 9n), true);
  assert.equal(holds(here, 7n), false);
});

test("a gap ends the newest run", () => {
  assert.equal(newestRun([]), null);
  assert.deepEqual(newestRun([...messages(1, 4), ...messages(7, 9)]), { from: 7n, to: 9n });
  assert.equal(complete(messages(1, 9), 2n, 9n), true);
  assert.equal(complete([...messages(1, 4), ...messages(7, 9)], 2n, 9n), false);
  assert.equal(complete([], 5n, 5n), true);
});

test("the span moves up and down without growing over its limit, and finds the end again", () => {
  const here = messages(1, 500);
  let span = tailSpan(here, 60);
  assert.deepEqual(span, { from: 441n, to: null });
  for (let i = 0; i < 30; i += 1) {
    span = extendUp(here, span, 40, 160);
    const drawn = indexAt(here, (span.to ?? 500n) + 1n) - indexAt(here, span.from);
    assert.ok(drawn <= 160, `${drawn} drawn`);
  }
  assert.deepEqual(span, { from: 1n, to: 160n });
  for (let i = 0; i < 30 && span.to !== null; i += 1) span = extendDown(here, span, 40, 160);
  assert.deepEqual(span, { from: 341n, to: null });
});

test("a span around a message reaches to the end only where it ends there", () => {
  const here = messages(1, 100);
  assert.deepEqual(spanAround(here, 50n, 30), { from: 20n, to: 80n });
  assert.deepEqual(spanAround(here, 90n, 30), { from: 60n, to: null });
  assert.deepEqual(spanAround(here, 3n, 30), { from: 1n, to: 33n });
});
