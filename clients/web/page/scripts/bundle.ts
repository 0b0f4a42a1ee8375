/**
 * Bundles the page: one script, one style sheet, one icon, each named by its content,
 * and the HTML that names them. The same sources give the same bytes.
 */
import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { brotliCompressSync } from "node:zlib";
import { build } from "esbuild";
import { slim } from "./slim.ts";

export const PAGE = fileURLToPath(new URL("..", import.meta.url));

export interface Options {
  outDir: string;
  /** Take the page's test double for the client. */
  fake: boolean;
}

/** Sizes in bytes after brotli, by file. */
export async function bundle({ outDir, fake }: Options): Promise<Map<string, number>> {
  const result = await build({
    absWorkingDir: PAGE,
    entryPoints: ["src/main.tsx"],
    outdir: "assets",
    entryNames: "page-[hash]",
    bundle: true,
    write: false,
    minify: true,
    format: "esm",
    target: "es2022",
    charset: "utf8",
    legalComments: "none",
    jsx: "automatic",
    jsxImportSource: "preact",
    conditions: ["duologue-source"],
    define: { "process.env.NODE_ENV": '"production"' },
    ...(fake ? { alias: { "@duologue/client": "./src/fake/index.ts" } } : {}),
    plugins: [slim],
    logLevel: "warning",
  });
  const files = new Map(result.outputFiles.map((file) => [`assets/${basename(file.path)}`, Buffer.from(file.contents)]));
  const icon = readFileSync(join(PAGE, "src/icon.svg"));
  const hash = createHash("sha256").update(icon).digest("base64url").replace(/[^A-Za-z0-9]/g, "").slice(0, 8).toUpperCase();
  const iconName = `assets/icon-${hash}.svg`;
  files.set(iconName, icon);
  files.set("index.html", Buffer.from(html(files, iconName)));
  write(outDir, files);
  return new Map([...files].map(([name, bytes]) => [name, brotliCompressSync(bytes).length]));
}

function html(files: Map<string, Buffer>, icon: string): string {
  const named = (end: string): string => {
    const name = [...files.keys()].find((file) => file.endsWith(end));
    if (name === undefined) throw new Error(`the bundle holds no ${end}`);
    return `/${name}`;
  };
  return readFileSync(join(PAGE, "src/index.html"), "utf8")
    .replace("%ICON%", `/${icon}`)
    .replace("%CSS%", named(".css"))
    .replace("%JS%", named(".js"));
}

function write(outDir: string, files: Map<string, Buffer>): void {
  const assets = join(outDir, "assets");
  mkdirSync(assets, { recursive: true });
  for (const name of readdirSync(assets)) if (!files.has(`assets/${name}`)) rmSync(join(assets, name));
  for (const [name, bytes] of files) writeFileSync(join(outDir, name), bytes);
}
