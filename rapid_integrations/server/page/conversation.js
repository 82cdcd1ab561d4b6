// The turns of this tab: it asks, follows the answer as it comes, and stops it.

import * as api from "./api.js";
import { announce, byId } from "./dom.js";
import { sourcesOf } from "./sources.js";
import { tokenOf } from "./tokens.js";
import { TurnView, newTurn } from "./turn.js";
import { progressWords } from "./words.js";

const NEAR = 160; // pixels from the end of the page within which it follows the answer

export class Conversation {
  /**
   * @param {object[]} turns of an earlier load of the page
   * @param {object} told `changed()` when there is something to keep, `running(bool)`, `failed(failure)`; it also has
   *   `settings()`, which returns {most, law, provisional} as the form has them
   */
  constructor(turns, told) {
    this.told = told;
    this.turns = turns;
    this.model = null;
    this.abort = null; // of the running answer
    this.leaving = false; // the browser cuts the answer of a page that is left
    for (const turn of turns) {
      if (turn.state === "running") turn.state = "left";
      this.show(turn);
    }
  }

  get running() {
    return this.abort !== null;
  }

  show(turn) {
    const view = new TurnView(turn, () => this.again(turn, view));
    byId("empty").hidden = true;
    byId("turns").append(view.element);
    return view;
  }

  /** Ask a question about documents. */
  async ask(question, documents) {
    const turn = newTurn(question, documents.map((file) => ({ id: file.id, name: file.filename })));
    await this.run(turn, this.show(turn));
  }

  /** Ask a question again whose answer did not come to its end. What came of it is dropped. */
  async again(turn, view) {
    if (this.running) return;
    const fresh = newTurn(turn.question, turn.documents);
    const place = this.turns.indexOf(turn);
    this.turns.splice(place, 1);
    view.element.remove();
    byId("question").focus();
    await this.run(fresh, this.show(fresh));
  }

  async run(turn, view) {
    const messages = [...this.history(), { role: "user", content: turn.question }];
    this.turns.push(turn);
    this.abort = new AbortController();
    this.told.running(true);
    this.told.changed();
    announce("Asking");
    view.element.scrollIntoView({ block: "nearest" });
    const begin = performance.now();
    try {
      this.model ??= await api.model();
      const body = requestOf(this.model.id, messages, turn, this.told.settings());
      for await (const event of api.answer(body, this.abort.signal)) this.take(turn, view, event, begin);
      turn.state = "done";
    } catch (error) {
      if (this.leaving) turn.state = "left";
      else if (error.name === "AbortError") turn.state = "stopped";
      else if (error instanceof api.Failure) this.fail(turn, error);
      else throw error;
    } finally {
      turn.allS = turn.firstWordS === null ? null : since(begin);
      this.abort = null;
      view.end();
      this.told.running(false);
      this.told.changed();
      announce({ done: `Answer: ${turn.text}`, stopped: "The answer was stopped" }[turn.state] ?? "");
    }
  }

  take(turn, view, event, begin) {
    const rapid = event.rapid ?? {};
    if (event.usage) turn.usage = event.usage;
    if (rapid.progress) {
      following(() => view.progress(rapid.progress));
      announce(progressWords({ ...rapid.progress, total: 1 })); // the stage alone: the numbers change all the time
    }
    if (rapid.provisional) {
      following(() => view.guess(rapid.provisional.text));
      announce("A provisional answer is coming");
    }
    if (rapid.tokens?.length) {
      const tokens = rapid.tokens.map(tokenOf);
      if (turn.tokens.length === 0) announce("The answer is coming");
      turn.firstWordS ??= since(begin);
      turn.tokens.push(...tokens);
      following(() => view.append(tokens));
    }
    for (const choice of event.choices) {
      turn.text += choice.delta.content ?? "";
      turn.finish = choice.finish_reason ?? turn.finish;
    }
    if (rapid.statistics) turn.statistics = rapid.statistics;
    if (rapid.sources) turn.sources = sourcesOf(rapid.sources, turn.documents);
  }

  fail(turn, failure) {
    turn.state = "failed";
    turn.failure = { code: failure.code, status: failure.status, message: failure.message, retryAfter: failure.retryAfter };
    if (failure.status === 401) this.told.failed(failure);
  }

  /** Stop the running answer. The server notices that its client has left, and stops as well. */
  stop() {
    this.abort?.abort();
  }

  anew() {
    this.stop();
    this.turns.length = 0;
    byId("turns").replaceChildren(byId("empty"));
    byId("empty").hidden = false;
    this.told.changed();
  }

  /** The messages of the turns that have an answer, or the beginning of one. */
  history() {
    return this.turns
      .filter((turn) => turn.text.trim() !== "")
      .flatMap(({ question, text }) => [{ role: "user", content: question }, { role: "assistant", content: text }]);
  }
}

function requestOf(model, messages, turn, { most, law, provisional }) {
  const documents = turn.documents.map(({ id }) => ({ file_id: id }));
  const rapid = { documents, sources: true, statistics: true, trace: true, progress: true, provisional };
  if (law) rapid.law = law;
  // The tokens' colours and the places of sources count from the beginning of the whole text.
  const body = { model, messages, rapid, stream_options: { include_usage: true }, separate_reasoning: false };
  if (most !== null) body.max_tokens = most;
  return body;
}

const since = (begin) => (performance.now() - begin) / 1000;

/** Change the page, and stay at its end if that is where the reader is. */
function following(change) {
  const page = document.documentElement;
  const atEnd = page.scrollHeight - page.scrollTop - page.clientHeight < NEAR;
  change();
  if (atEnd) page.scrollTo({ top: page.scrollHeight, behavior: "instant" });
}
