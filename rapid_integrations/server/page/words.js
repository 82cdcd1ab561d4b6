// The words of this page for what the server calls by codes.

/** Origins of tokens, with the words of the trace page (`rapid_integrations/trace/page.py`). */
export const ORIGINS = {
  drafter: ["drafted, accepted", "The drafter proposed it and the target accepted it."],
  draft_lm: ["drafted by draft_lm, accepted", "The small draft model proposed it and the target accepted it."],
  prompt_lookup: ["looked up, accepted", "It was copied from an earlier place with the same words, and accepted."],
  other: ["proposed, accepted", "Another proposer proposed it and the target accepted it."],
  corrected: ["corrected", "The target put it in place of a draft token that it rejected."],
  bonus: ["bonus", "The target added it after a draft that it accepted whole."],
  target: ["not drafted", "Nothing had been drafted here; the target wrote it."],
};

const STAGES = {
  "extract text": "Extracting the text",
  "load embedder": "Loading the embedder",
  embed: "Preparing the search",
  retrieve: "Searching",
  waiting: "Waiting for memory",
  "prefill target": "The target is reading",
  "prefill drafter": "The drafter is reading",
  "prefill draft model": "The draft model is reading",
};

const whole = new Intl.NumberFormat("en");

export const count = (number) => whole.format(number);

/** Return a number with its noun: "1 page", "2,000 pages". */
export const counted = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;

export function bytes(number) {
  if (number < 1024) return counted(number, "byte");
  return number < 2 ** 20 ? `${count(Math.round(number / 1024))} KB` : `${(number / 2 ** 20).toFixed(1)} MB`;
}

/** Say how far a stage of reading is. */
export function progressWords({ stage, done, total }) {
  const download = stage.startsWith("download ");
  const name = download ? `Downloading ${stage.slice(9)}` : (STAGES[stage] ?? "Working");
  const amount = download ? bytes : count;
  return total > 1 ? `${name}: ${amount(done)} of ${amount(total)}` : name;
}

export const seconds = (value) => (value < 10 ? `${value.toFixed(1)} s` : `${count(Math.round(value))} s`);

/** Return a probability to two digits. A value close to 0 or 1 is never shown as 0 or 1. */
export function chance(value) {
  if (value > 0.995 && value < 1) return "> 0.99";
  return value < 0.005 && value > 0 ? "< 0.01" : value.toFixed(2);
}

/** Make white space at the edges and line breaks of a token visible. */
export function visible(text) {
  if (text === "") return "(no text)";
  return text.replace(/^ +| +$/g, (spaces) => "␣".repeat(spaces.length)).replaceAll("\n", "⏎").replaceAll("\t", "⇥");
}

/** Say in plain words why a request failed: what happened, and what helps. */
export function failureWords(failure) {
  switch (failure.code) {
    case "unreachable":
      return ["The server cannot be reached", "Is rapid serve still running? Your question is kept; ask again when it is."];
    case "cut_off":
      return ["The answer was cut off", "The connection to the server broke. Ask again."];
    case "context_length_exceeded":
      return [
        "That is too long for this model",
        `The documents and the conversation do not fit into what it can read at once. Choose fewer documents, or begin a new conversation. (${failure.message})`,
      ];
    case "rate_limit_exceeded":
      return ["The server is busy", `Others are waiting already. Ask again in ${seconds(failure.retryAfter ?? 5)}.`];
    case "invalid_api_key":
      return ["The API key is missing or wrong", "Give the key that whoever runs the server has made for you."];
    case "file_not_found":
      return ["A document is gone", "Somebody has deleted it. Choose your documents again."];
    case "file_too_large":
    case "body_too_large":
    case "store_full":
    case "too_many_files":
      return ["The document cannot be kept", failure.message];
    case "request_timeout":
      return ["The answer took too long", "The server stopped it. Ask for a shorter answer, or choose fewer documents."];
    case "stopping":
      return ["The server is stopping", "Ask again when it has started anew."];
  }
  if (failure.code?.startsWith("out_of_memory")) {
    return ["The server has too little memory for this", `Choose fewer documents, or ask again later. (${failure.message})`];
  }
  return [failure.status >= 500 ? "The server failed" : "The server refused this", failure.message];
}
