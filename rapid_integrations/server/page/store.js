// What this tab keeps over a reload. Other tabs have their own, and the browser forgets it with the tab.

const NAME = "rapid.conversation";

/** Return what was kept: {turns, chosen}. */
export function restored() {
  try {
    const found = JSON.parse(sessionStorage.getItem(NAME));
    return { turns: found?.turns ?? [], chosen: found?.chosen ?? [] };
  } catch {
    return { turns: [], chosen: [] };
  }
}

export function keep(turns, chosen) {
  const bare = () => turns.map((turn) => ({ ...turn, tokens: [] }));
  for (const kept of [() => turns, bare]) {
    try {
      sessionStorage.setItem(NAME, JSON.stringify({ turns: kept(), chosen }));
      return;
    } catch {
      // There is no room for that much: the colours of the answers go first.
    }
  }
}
