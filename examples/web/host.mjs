/**
 * A host application: it knows its users by its own means, and hands them over to the
 * chat page, each with a token that it signs. It needs Node.js 20 and nothing else.
 *
 *   node host.mjs --key host-key.pem --chat http://127.0.0.1:8080 --port 3000
 */
import { createPrivateKey, randomUUID, sign } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { parseArgs } from "node:util";

const { values: flags } = parseArgs({
  options: {
    key: { type: "string" },
    chat: { type: "string", default: "http://127.0.0.1:8080" },
    port: { type: "string", default: "3000" },
    /** As browsers call it: behind a proxy that ends TLS, https://… */
    url: { type: "string" },
  },
});
if (flags.key === undefined) throw new Error("--key FILE: the private key, Ed25519 in PEM");
const key = createPrivateKey(readFileSync(flags.key));
const chat = new URL(flags.chat).origin;

/** The page needs another one then, which is a new visit here. */
const TOKEN_SECONDS = 8 * 60 * 60;

/** What Duologue verifies with the public key: who it is, and until when. */
function tokenFor(user) {
  const now = Math.floor(Date.now() / 1000);
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const signed = `${part({ alg: "EdDSA", typ: "JWT" })}.${part({ sub: user, iat: now, exp: now + TOKEN_SECONDS })}`;
  return `${signed}.${sign(null, Buffer.from(signed), key).toString("base64url")}`;
}

/** In place of the application's own sign-in, which asks for more than a name, and whose
 * sessions end. */
const sessions = new Map();
const sessionOf = (request, cookie) => new RegExp(`(?:^|; )${cookie}=([^;]+)`).exec(request.headers.cookie ?? "")?.[1];

const PAGE = `<!doctype html><meta charset="utf-8"><title>Host</title><link rel="icon" href="data:,">
<form method="post" action="/sign-in"><label>Name <input name="user" required></label> <button>Sign in</button></form>
<button id="chat">Open the chat</button>
<script>
  document.getElementById("chat").onclick = async () => {
    const answer = await fetch("/chat-token", { method: "POST" });
    if (!answer.ok) return alert("Sign in first.");
    // Behind the #, which browsers send to no server. The chat page takes it out at once.
    location.href = ${JSON.stringify(`${chat}/#token=`)} + encodeURIComponent((await answer.json()).token);
  };
</script>`;

async function formOf(request) {
  let text = "";
  for await (const chunk of request.setEncoding("utf8")) {
    text += chunk;
    if (text.length > 1024) throw new Error("too long");
  }
  return new URLSearchParams(text);
}

async function answer(own, request, response) {
  const send = (status, headers, body = "") => response.writeHead(status, { "cache-control": "no-store", ...headers }).end(body);
  // Over HTTPS, a cookie that no other host can set.
  const isSecure = own.protocol === "https:";
  const cookie = isSecure ? "__Host-session" : "session";
  // Another name for this machine is a site that pretends to be this one.
  if (request.headers.host !== own.host) return send(421, {});
  // No other site may sign anybody in, or ask for a token.
  if (request.method === "POST" && request.headers.origin !== own.origin) return send(403, {});
  switch (`${request.method} ${request.url}`) {
    case "GET /":
      return send(200, { "content-type": "text/html" }, PAGE);
    case "POST /sign-in": {
      const user = (await formOf(request)).get("user");
      sessions.delete(sessionOf(request, cookie));
      const id = randomUUID();
      sessions.set(id, user);
      const rules = `HttpOnly; SameSite=Strict; Path=/${isSecure ? "; Secure" : ""}`;
      return send(303, { location: "/", "set-cookie": `${cookie}=${id}; ${rules}` });
    }
    case "POST /chat-token": {
      const user = sessions.get(sessionOf(request, cookie));
      if (!user) return send(401, {});
      return send(200, { "content-type": "application/json" }, JSON.stringify({ token: tokenFor(user) }));
    }
    default:
      return send(404, {});
  }
}

const server = createServer();
server.listen(Number(flags.port), "127.0.0.1", () => {
  const own = new URL(flags.url ?? `http://127.0.0.1:${server.address().port}`);
  server.on("request", (request, response) => {
    answer(own, request, response).catch(() => response.writeHead(400).end());
  });
  console.log(`host      ${own.origin}`);
});
