/**
 * Who uses this tab, and with what token. A token comes from the development sign-in,
 * from the address' fragment (taken out of it at once), or is pasted. It is kept for
 * this tab only; without storage, until the next reload.
 */
import { kept, type Kept } from "./kept.ts";

export interface Account {
  user: string;
  /** Fixed; without one, `POST /dev/token` gives it. */
  token?: string;
}

export interface Deployment {
  devToken: boolean;
  /** The server's clock less this device's. */
  skewMs: number;
}

const ACCOUNT = "duologue.account";
const NAME = "duologue.name";

const tab = (): Kept => kept("sessionStorage");

/** What the gateway says of itself; its `Date` is the server's clock to the second. */
export async function deployment(): Promise<Deployment> {
  const response = await fetch("/config.json", { cache: "no-store" });
  if (!response.ok) throw new Error(`the server answered ${response.status}`);
  const date = Date.parse(response.headers.get("date") ?? "");
  const body: unknown = await response.json();
  const devToken = typeof body === "object" && body !== null && "devToken" in body && body.devToken === true;
  const skewMs = Number.isNaN(date) ? 0 : date + 500 - Date.now();
  return { devToken, skewMs: Math.abs(skewMs) < 2000 ? 0 : skewMs };
}

export async function developmentToken(user: string): Promise<string> {
  const response = await fetch("/dev/token", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ user }),
    credentials: "omit",
  });
  if (!response.ok) throw new Error(`the server gave no token (${response.status})`);
  const body: unknown = await response.json();
  if (typeof body !== "object" || body === null || !("token" in body) || typeof body.token !== "string") {
    throw new Error("the server's answer holds no token");
  }
  return body.token;
}

/** The user a token names; null where it is none. The server alone judges it. */
export function userOf(token: string): string | null {
  try {
    const part = token.trim().split(".")[1] ?? "";
    const binary = atob(part.replace(/-/g, "+").replace(/_/g, "/"));
    const claims: unknown = JSON.parse(new TextDecoder().decode(Uint8Array.from(binary, (c) => c.charCodeAt(0))));
    if (typeof claims !== "object" || claims === null || !("sub" in claims)) return null;
    return typeof claims.sub === "string" && claims.sub !== "" ? claims.sub : null;
  } catch {
    return null;
  }
}

/** `#token=…`, once: the address keeps nothing of it. */
export function takeTokenFromAddress(): string | null {
  const fragment = new URLSearchParams(location.hash.slice(1));
  const token = fragment.get("token");
  if (token === null) return null;
  fragment.delete("token");
  const rest = fragment.toString();
  history.replaceState(null, "", rest === "" ? location.pathname : `#${rest}`);
  return token;
}

/** Who was signed in here before the reload. */
export function remembered(): Account | null {
  try {
    const value: unknown = JSON.parse(tab().get(ACCOUNT) ?? "null");
    if (typeof value !== "object" || value === null || !("user" in value) || typeof value.user !== "string") return null;
    const token = "token" in value && typeof value.token === "string" ? value.token : undefined;
    return token === undefined ? { user: value.user } : { user: value.user, token };
  } catch {
    return null;
  }
}

export function remember(account: Account): void {
  tab().set(ACCOUNT, JSON.stringify(account));
  kept("localStorage").set(NAME, account.user);
}

export function forget(): void {
  tab().remove(ACCOUNT);
}

/** Proposed at the next sign-in. */
export function lastName(): string {
  return kept("localStorage").get(NAME) ?? "";
}
