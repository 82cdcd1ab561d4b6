// The dialog that shows a document's text, at a passage or from its beginning.

import * as api from "./api.js";
import { byId, make } from "./dom.js";
import { unitsOf } from "./offsets.js";
import { failureWords } from "./words.js";

const AROUND = 4000; // characters that are shown before and behind; buttons show more

byId("passage-close").addEventListener("click", () => byId("passage").close());

let shown = 0; // counts what was opened, so that a late answer of the server shows nothing

/**
 * Open a document.
 *
 * @param {object} what {file, name, place, start, end, text}; without `text`, the document from its beginning
 */
export async function openPassage({ file, name, place = "", start = 0, end = 0, text = "" }) {
  const mine = ++shown;
  byId("passage-title").replaceChildren(make("bdi", {}, name));
  byId("passage-note").textContent = "Loading the text";
  byId("passage-text").replaceChildren();
  byId("passage").showModal();
  let whole = null;
  let note = place;
  try {
    if (file !== null) whole = (await api.fileText(file)).text;
    else note = "Only this passage is known; it came with the conversation.";
  } catch (failure) {
    note = `Only the passage can be shown. ${failureWords(failure).join(": ")}`;
  }
  if (mine !== shown) return;
  byId("passage-note").textContent = note;
  if (whole === null) byId("passage-text").replaceChildren(make("mark", {}, text));
  else show(whole, ...placeOf(whole, start, end, text));
  byId("passage-text").focus();
}

/** Return where the passage begins and ends, in UTF-16 units. */
function placeOf(whole, start, end, text) {
  const [from, to] = unitsOf(whole, [start, end]);
  if (whole.slice(from, to) === text) return [from, to];
  const found = whole.indexOf(text);
  return found < 0 ? [from, to] : [found, found + text.length];
}

function show(whole, from, to) {
  const box = byId("passage-text");
  const mark = make("mark", {}, whole.slice(from, to));
  let first = Math.max(0, from - AROUND);
  let last = Math.min(whole.length, to + AROUND);
  const earlier = make("button", { type: "button" }, "Show earlier text");
  const later = make("button", { type: "button" }, "Show later text");
  const hide = () => {
    earlier.hidden = first === 0;
    later.hidden = last === whole.length;
  };
  earlier.addEventListener("click", () => {
    const before = Math.max(0, first - AROUND);
    const height = box.scrollHeight;
    earlier.after(whole.slice(before, first));
    box.scrollTop += box.scrollHeight - height; // what was read stays where it is
    first = before;
    hide();
  });
  later.addEventListener("click", () => {
    const behind = Math.min(whole.length, last + AROUND);
    later.before(whole.slice(last, behind));
    last = behind;
    hide();
  });
  hide();
  box.replaceChildren(earlier, whole.slice(first, from), mark, whole.slice(to, last), later);
  box.scrollTop = Math.max(0, mark.offsetTop - box.offsetTop - box.clientHeight / 4);
}
