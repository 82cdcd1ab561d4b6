"""An engine or a drafter on another machine: the client's side, and the routes that a server offers for it."""
