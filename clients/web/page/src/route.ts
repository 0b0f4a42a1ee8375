/** The open conversation in the address (`#with=…`), so that reload and "back" work. */

export function peerInAddress(): string | null {
  const peer = new URLSearchParams(location.hash.slice(1)).get("with");
  return peer === null || peer === "" ? null : peer;
}

/** From the list this is a step that "back" undoes; between conversations it is none. */
export function goTo(peer: string): void {
  const address = `#${new URLSearchParams({ with: peer }).toString()}`;
  if (peerInAddress() === null) history.pushState({ fromList: true }, "", address);
  else history.replaceState(history.state, "", address);
  window.dispatchEvent(new PopStateEvent("popstate"));
}

export function leave(): void {
  const state: unknown = history.state;
  if (typeof state === "object" && state !== null && "fromList" in state) {
    history.back();
    return;
  }
  history.replaceState(null, "", location.pathname);
  window.dispatchEvent(new PopStateEvent("popstate"));
}
