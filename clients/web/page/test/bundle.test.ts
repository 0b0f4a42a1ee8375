import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { bundle } from "../scripts/bundle.ts";

test("the same sources give the same bytes, without the test double, and nothing inline", async () => {
  const directories = [0, 1].map(() => mkdtempSync(join(tmpdir(), "duologue-bundle-")));
  const built: Map<string, string>[] = [];
  for (const outDir of directories) {
    await bundle({ outDir, fake: false });
    const names = [...readdirSync(join(outDir, "assets")).map((name) => `assets/${name}`), "index.html"];
    built.push(new Map(names.map((name) => [name, readFileSync(join(outDir, name), "latin1")])));
    rmSync(outDir, { recursive: true });
  }
  assert.deepEqual(built[0], built[1]);
  const all = [...(built[0] ?? [])];
  assert.equal(all.length, 4);
  for (const [name, text] of all) assert.ok(!text.includes("duologueFake"), name);
  const html = built[0]?.get("index.html") ?? "";
  assert.ok(!/<style|style=|<script>|\son\w+=/.test(html));
  for (const [name] of all) if (name !== "index.html") assert.ok(html.includes(`/${name}`), name);
});
