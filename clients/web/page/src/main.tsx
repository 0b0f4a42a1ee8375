/** Where the page begins. */
import { openShared } from "@duologue/client";
import { render } from "preact";
import { App } from "./app.tsx";
import * as signin from "./signin.ts";
import "./style/main.css";

const VERSION = "0.1.0";

const root = document.getElementById("app");
if (root !== null) {
  // First of all: the address must not keep a token while anything else happens.
  const handedToken = signin.takeTokenFromAddress();
  const openClient = async (account: signin.Account) =>
    openShared({
      url: location.origin,
      user: account.user,
      token: () => account.token ?? signin.developmentToken(account.user),
      clientName: "duologue-page",
      clientVersion: VERSION,
    });
  render(<App openClient={openClient} handedToken={handedToken} />, root);
}
