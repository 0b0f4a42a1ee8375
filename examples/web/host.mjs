/**
 * A host application: it knows its users by its own means, and hands them over to the
 * chat page, each with a token that it signs. It needs Node.js 20 and nothing else.
 *
 *   node host.mjs --key host-key.pem --chat http://127.0.0.1:8080 --listen 127.0.0.1:3000
 */
import { createPrivateKey, randomUUID, sign } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { parseArgs } from "node:util";

const { values: flags } = parseArgs({
  options: {
    key: { type: "string" },
    chat: { type: "string", default: "http://127.0.0.1:8080" },
    listen: { type: "string", default: "127.0.0.1:3000" },
  },
});
if (flags.key === undefined) throw new Error("--key FILE: the private key, Ed25519 in PEM");
const key = createPrivateKey(readFileSync(flags.key));
const chat = new URL(flags.chat).origin;
const listen = new URL(`http://${flags.listen}`);

/** A chat that lasts longer asks for a new token, which is a new visit here. */
const TOKEN_SECONDS = 8 * 60 * 60;

/** What Duologue verifies with the public key: who it is, and until when. */
function tokenFor(user) {
  const now = Math.floor(Date.now() / 1000);
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const signed = `${part({ alg: "EdDSA", typ: "JWT" })}.${part({ sub: user, iat: now, exp: now + TOKEN_SECONDS })}`;
  return `${signed}.${sign(null, Buffer.from(signed), key).toString("base64url")}`;
}

/** In place of the application's own sign-in: its sessions, and whose they are. */
const sessions = new Map();
const userOf = (request) => sessions.get(/(?:^|; )session=([^;]+)/.exec(request.headers.cookie ?? "")?.[1]);

const PAGE = `<!doctype html><meta charset="utf-8"><title>Host</title><link rel="icon" href="data:,">
<form method="post" action="/sign-in"><label>Name <input name="user" required></label> <button>Sign in</button></form>
<button id="chat">Open the chat</button>
<script>
  document.getElementById("chat").onclick = async () => {
    const answer = await fetch("/chat-token", { method: "POST" });
    if (!answer.ok) return alert("Sign in first.");
    // Behind the #, which browsers send to nobody and write into no log.
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

async function answer(request, response) {
  const send = (status, headers, body = "") => response.writeHead(status, { "cache-control": "no-store", ...headers }).end(body);
  switch (`${request.method} ${request.url}`) {
    case "GET /":
      return send(200, { "content-type": "text/html" }, PAGE);
    case "POST /sign-in": {
      const id = randomUUID();
      sessions.set(id, (await formOf(request)).get("user"));
      // Strict: no other site can ask for a token in this user's name.
      return send(303, { location: "/", "set-cookie": `session=${id}; HttpOnly; SameSite=Strict; Path=/` });
    }
    case "POST /chat-token": {
      const user = userOf(request);
      if (!user) return send(401, {});
      return send(200, { "content-type": "application/json" }, JSON.stringify({ token: tokenFor(user) }));
    }
    default:
      return send(404, {});
  }
}

const server = createServer((request, response) => {
  answer(request, response).catch(() => response.writeHead(400).end());
});
server.listen(Number(listen.port), listen.hostname, () => {
  console.log(`host      http://${listen.hostname}:${server.address().port}`);
});
