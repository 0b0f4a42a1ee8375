/** Signed out or signed in, and the way between. */
import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import type { Client } from "./api.ts";
import { Controller } from "./controller.ts";
import * as signin from "./signin.ts";
import { Chat } from "./view/chat.tsx";
import { SignIn } from "./view/signin.tsx";

/** Makes a client for an account. */
export type OpenClient = (account: signin.Account) => Promise<Client>;

interface Props {
  openClient: OpenClient;
  handedToken: string | null;
}

export function App({ openClient, handedToken }: Props): JSX.Element {
  const [deployment, setDeployment] = useState<signin.Deployment | Error | null>(null);
  const [controller, setController] = useState<Controller | null>(null);
  const [problem, setProblem] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);

  const enter = async (account: signin.Account, known: signin.Deployment): Promise<void> => {
    setBusy(true);
    setProblem(null);
    try {
      const client = await openClient(account);
      signin.remember(account);
      setController(new Controller(client, known.skewMs));
    } catch (error) {
      setProblem(`Signing in failed: ${error instanceof Error ? error.message : "the reason is not known"}.`);
    }
    setBusy(false);
  };
  const ask = async (): Promise<void> => {
    setDeployment(null);
    try {
      const known = await signin.deployment();
      setDeployment(known);
      const account = accountOf(handedToken) ?? signin.remembered();
      if (account !== null && (known.devToken || account.token !== undefined)) await enter(account, known);
    } catch (error) {
      setDeployment(error instanceof Error ? error : new Error("the reason is not known"));
    }
  };
  const signOut = (): void => {
    signin.forget();
    setController(null);
    history.replaceState(null, "", location.pathname);
    document.title = "Duologue";
    void controller?.end();
  };
  useEffect(() => void ask(), []);

  if (controller !== null) return <Chat controller={controller} onSignOut={signOut} />;
  const onAccount = (account: signin.Account): void => {
    if (deployment !== null && !(deployment instanceof Error)) void enter(account, deployment);
  };
  return <SignIn deployment={deployment} problem={problem} busy={busy} onAccount={onAccount} onAskAgain={() => void ask()} />;
}

function accountOf(token: string | null): signin.Account | null {
  const user = token === null ? null : signin.userOf(token);
  return user === null || token === null ? null : { user, token };
}
