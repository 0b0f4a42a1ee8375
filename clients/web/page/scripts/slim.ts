/**
 * Makes the bundle smaller where the protobuf runtime is concerned, without touching
 * what it does for the page:
 *
 * - its JSON codec is left out: all transports of the client are binary. It throws if
 *   it is reached nevertheless;
 * - of the messages that describe descriptors, those that generated code never holds
 *   have no fields, and of options those that it reads are left;
 * - defaults that are what a field is without one are left out, and with them the
 *   reading of defaults;
 * - descriptors stand as text and not as base64, which no compressor can shrink.
 *
 * Anything else than what is expected here ends the build: a newer runtime is looked
 * at, and not guessed about.
 */
import { readFile } from "node:fs/promises";
import { basename } from "node:path";
import type { Plugin } from "esbuild";

/** Modules that nothing of the page reaches, and what they export. */
const UNREACHED: Record<string, string[]> = {
  "from-json.js": ["enumFromJson", "fromJson", "fromJsonString", "isEnumJson", "mergeFromJson", "mergeFromJsonString"],
  "to-json.js": ["enumToJson", "toJson", "toJsonString"],
  "text-format.js": ["parseTextFormatEnumValue", "parseTextFormatScalarValue"],
};

/** They describe source text, generators and extensions. */
const UNUSED_DESCRIPTORS = ["ExtensionRangeOptions", "UninterpretedOption", "FeatureSetDefaults", "SourceCodeInfo", "GeneratedCodeInfo"];

export const slim: Plugin = {
  name: "slim",
  setup(build) {
    build.onLoad({ filter: /@bufbuild[\\/]protobuf[\\/]dist[\\/]esm[\\/](.*-json|wire[\\/]text-format)\.js$/ }, async ({ path }) => {
      const names = UNREACHED[basename(path)] ?? [];
      const exported = [...(await readFile(path, "utf8")).matchAll(/^export function (\w+)/gm)].map((match) => match[1]).sort();
      if (exported.join() !== names.join()) throw new Error(`${basename(path)} exports other functions: ${exported.join()}`);
      return { contents: `const never=()=>{throw new Error("left out")};export{${names.map((name) => `never as ${name}`).join()}}`, loader: "js" };
    });
    build.onLoad({ filter: /@bufbuild[\\/]protobuf[\\/].*[\\/]descriptor_pb\.js$/ }, async ({ path }) => ({
      contents: withoutUnused(await readFile(path, "utf8")), loader: "js",
    }));
    build.onLoad({ filter: /[\\/]generated[\\/].*_pb\.ts$/ }, async ({ path }) => ({
      contents: descriptorAsText(await readFile(path, "utf8"), path), loader: "ts",
    }));
  },
};

/** The options that the runtime reads; the rest are for other languages and for compilers. */
const OPTIONS_READ: Record<string, string[]> = {
  FileOptions: ["features", "deprecated"],
  FieldOptions: ["packed", "jstype", "features", "deprecated"],
  MessageOptions: ["map_entry", "features", "deprecated"],
  EnumValueOptions: ["features", "deprecated"],
  EnumOptions: ["features", "deprecated"],
};

interface Described {
  name: string;
  field?: { name: string; typeName?: string; defaultValue?: string }[];
  nestedType?: Described[];
  enumType?: { name: string; value: { name: string }[] }[];
}

function withoutUnused(source: string): string {
  const literal = /boot\((\{.*\})\);/.exec(source)?.[1];
  if (literal === undefined) throw new Error("descriptor_pb.js looks otherwise");
  const file = JSON.parse(literal) as { messageType: Described[] };
  const found = file.messageType.filter((message) => UNUSED_DESCRIPTORS.includes(message.name));
  if (found.length !== UNUSED_DESCRIPTORS.length) throw new Error("a descriptor that would be left out is not there");
  for (const message of found) strip(message);
  const enums = enumsOf(file, ".google.protobuf");
  for (const message of file.messageType) dropDefaults(message, enums);
  for (const [name, read] of Object.entries(OPTIONS_READ)) {
    const options = file.messageType.find((message) => message.name === name);
    const kept = options?.field?.filter((field) => read.includes(field.name));
    if (options === undefined || kept?.length !== read.length) throw new Error(`${name} looks otherwise`);
    options.field = kept;
    for (const nested of options.nestedType ?? []) strip(nested);
    const isUsed = (it: { name: string }) => kept.some(({ typeName }) => typeName?.endsWith(`.${it.name}`));
    if (options.enumType !== undefined) options.enumType = options.enumType.filter(isUsed);
  }
  const slimmed = JSON.stringify(file);
  if (slimmed.includes("defaultValue")) throw new Error("a default would have to be read");
  return source.replace(literal, () => slimmed);
}

/** The first value of each enum, by the enum's full name. */
function enumsOf({ enumType = [], nestedType = [], messageType = [] }: Partial<Described> & { messageType?: Described[] }, within: string): Map<string, string> {
  const own = enumType.map(({ name, value }): [string, string] => [`${within}.${name}`, value[0]?.name ?? ""]);
  const nested = [...messageType, ...nestedType].flatMap((message) => [...enumsOf(message, `${within}.${message.name}`)]);
  return new Map([...own, ...nested]);
}

/** Of what is read: another default than that of its type would be missed. */
function dropDefaults(message: Described, enums: Map<string, string>): void {
  for (const field of message.field ?? []) {
    const usual = field.typeName === undefined ? "false" : enums.get(field.typeName);
    if (field.defaultValue === usual) delete field.defaultValue;
  }
  for (const nested of message.nestedType ?? []) dropDefaults(nested, enums);
}

function strip(message: Described): void {
  delete message.field;
  for (const nested of message.nestedType ?? []) strip(nested);
}

function descriptorAsText(source: string, path: string): string {
  const encoded = /fileDesc\("([A-Za-z0-9+/=]+)"/.exec(source)?.[1];
  if (encoded === undefined) throw new Error(`${path} holds no descriptor`);
  const text = JSON.stringify(Buffer.from(encoded, "base64").toString("latin1"));
  return source.replace(`"${encoded}"`, () => `btoa(${text})`);
}
