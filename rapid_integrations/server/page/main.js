// The page: documents on the one side, a conversation about them on the other.

import * as api from "./api.js";
import { Conversation } from "./conversation.js";
import { Documents } from "./documents.js";
import { byId, make } from "./dom.js";
import { openPassage } from "./passage.js";
import { keep, restored } from "./store.js";
import { count, failureWords } from "./words.js";

const found = restored();
const question = byId("question");

const documents = new Documents(found.chosen, {
  changed: save,
  failed: notice,
  opened: (file) => openPassage({ file: file.id, name: file.filename }),
});
const conversation = new Conversation(found.turns, { settings, changed: save, running, failed: notice });

function save() {
  keep(conversation.turns, [...documents.chosenIds]);
}

/** Show a failure above everything. A missing key is asked for instead. */
function notice(failure, words = failureWords(failure).join(". ")) {
  if (failure.status === 401) return askForKey();
  const close = make("button", { type: "button", className: "small" }, "Close");
  close.addEventListener("click", () => { byId("notice").hidden = true; });
  byId("notice").replaceChildren(make("p", {}, words), close);
  byId("notice").hidden = false;
}

function askForKey() {
  if (!byId("key").open) byId("key").showModal();
}

async function load() {
  try {
    conversation.model = await api.model();
    const { context_window: window, drafter } = conversation.model.rapid;
    const pair = drafter === null ? `${conversation.model.id}, drafts for itself` : `${conversation.model.id} with drafter ${drafter}`;
    byId("model").textContent = `${pair}, reads up to ${count(window)} tokens`;
    byId("notice").hidden = true;
    await documents.refresh();
  } catch (failure) {
    notice(failure);
  }
}

function settings() {
  const most = Math.floor(byId("most").valueAsNumber);
  return { most: most >= 1 ? most : null, law: byId("law").value, provisional: byId("provisional").checked };
}

function running(now) {
  byId("send").hidden = now;
  byId("stop").hidden = !now;
  if (document.activeElement === document.body) question.focus(); // the hidden button had the focus
}

byId("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = question.value.trim();
  if (text === "" || conversation.running) return question.focus();
  question.value = "";
  conversation.ask(text, documents.chosen);
});

question.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  byId("ask").requestSubmit();
});
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !document.querySelector("dialog[open]")) conversation.stop();
});
byId("stop").addEventListener("click", () => conversation.stop());
byId("anew").addEventListener("click", () => {
  conversation.anew();
  question.focus();
});
byId("colours").addEventListener("change", ({ target }) => document.body.classList.toggle("plain", !target.checked));
byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  api.useKey(byId("key-value").value.trim());
  byId("key-value").value = "";
  byId("key").close();
  load();
});
addEventListener("beforeunload", () => { conversation.leaving = true; });
addEventListener("pageshow", () => { conversation.leaving = false; });
addEventListener("visibilitychange", () => (document.hidden ? save() : documents.refresh()));

load();
