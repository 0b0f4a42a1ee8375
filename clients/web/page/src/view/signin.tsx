/** Signing in: by name where the deployment allows it, else with a token. */
import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { nameProblem } from "../model/lists.ts";
import { lastName, userOf, type Account, type Deployment } from "../signin.ts";
import { Icon } from "./icons.tsx";

interface Props {
  /** Null: not known yet; an error: it could not be asked. */
  deployment: Deployment | Error | null;
  /** Why a sign-in before has failed. */
  problem: string | null;
  busy: boolean;
  onAccount: (account: Account) => void;
  onAskAgain: () => void;
}

export function SignIn(props: Props): JSX.Element {
  const { deployment } = props;
  return (
    <main class="signin">
      <div class="signin-box">
        <div class="brand"><Icon name="bubbles" /><h1>Duologue</h1></div>
        {deployment === null && <p class="signin-note" role="status">Asking the server…</p>}
        {deployment instanceof Error && (
          <div role="alert">
            <p class="signin-note">The server cannot be reached: {deployment.message}.</p>
            <button type="button" class="primary" onClick={props.onAskAgain}>Try again</button>
          </div>
        )}
        {deployment !== null && !(deployment instanceof Error) && (deployment.devToken ? <NameForm {...props} /> : <TokenForm {...props} />)}
      </div>
    </main>
  );
}

function NameForm({ problem, busy, onAccount }: Props): JSX.Element {
  const [name, setName] = useState(lastName());
  const [wrong, setWrong] = useState<string | null>(null);
  const input = useRef<HTMLInputElement>(null);
  useEffect(() => input.current?.select(), []);
  useEffect(() => setWrong(problem), [problem]);

  const submit = (event: Event): void => {
    event.preventDefault();
    const found = nameProblem(name.trim());
    setWrong(found);
    if (found === null) onAccount({ user: name.trim() });
    else input.current?.focus();
  };
  return (
    <form onSubmit={submit} noValidate>
      <p class="signin-note">Private conversations between two people.</p>
      <label for="name">Your name</label>
      <input
        id="name" ref={input} dir="auto" value={name} autocomplete="username" autocapitalize="off" spellcheck={false} maxLength={64}
        aria-invalid={wrong !== null} aria-describedby={wrong === null ? "name-help" : "name-problem"}
        onInput={(event) => setName(event.currentTarget.value)}
      />
      {wrong !== null && <p class="problem" id="name-problem" role="alert">{wrong}</p>}
      <button type="submit" class="primary" disabled={busy}>{busy ? "Signing in…" : "Sign in"}</button>
      <p class="signin-small" id="name-help">This server runs for development: any name will do. Open a second window with another name to talk to yourself.</p>
    </form>
  );
}

function TokenForm({ problem, busy, onAccount }: Props): JSX.Element {
  const [token, setToken] = useState("");
  const [wrong, setWrong] = useState<string | null>(null);
  useEffect(() => setWrong(problem), [problem]);

  const submit = (event: Event): void => {
    event.preventDefault();
    const user = userOf(token);
    if (user === null) setWrong("This is not a token: it names no user.");
    else onAccount({ user, token: token.trim() });
  };
  return (
    <form onSubmit={submit} noValidate>
      <p class="signin-note">Your application signs you in here. Open the chat from there.</p>
      <details open={wrong !== null}>
        <summary>Sign in with a token</summary>
        <label for="token">Token</label>
        <textarea
          id="token" rows={4} value={token} autocomplete="off" spellcheck={false} aria-invalid={wrong !== null}
          aria-describedby={wrong === null ? undefined : "token-problem"} onInput={(event) => setToken(event.currentTarget.value)}
        />
        {wrong !== null && <p class="problem" id="token-problem" role="alert">{wrong}</p>}
        <button type="submit" class="primary" disabled={busy || token.trim() === ""}>Sign in</button>
      </details>
      <details>
        <summary>For developers of the application</summary>
        <p class="signin-small">
          Open this page with the user’s token in the fragment of its address: <code>#token=…</code> The fragment is not sent to any
          server, and the page removes it from the address at once. The token is a signed JWT whose <code>sub</code> names the user.
        </p>
      </details>
    </form>
  );
}
