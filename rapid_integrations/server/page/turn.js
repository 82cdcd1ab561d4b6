// One question with its answer, as it comes and when it is complete.

import { make } from "./dom.js";
import { openPassage } from "./passage.js";
import { marksOf, sourceList } from "./sources.js";
import { statisticsTable, summaryOf } from "./statistics.js";
import { Tokens } from "./tokens.js";
import { failureWords, progressWords } from "./words.js";

/**
 * Return a new turn. It is plain data, which the tab keeps over a reload.
 *
 * `state` is "running", "done", "stopped", "failed", or "left" (the page was left while the answer came).
 */
export function newTurn(question, documents) {
  return {
    question, documents, state: "running", text: "", tokens: [], sources: [], statistics: null, usage: null,
    finish: null, failure: null, firstWordS: null, allS: null,
  };
}

const ENDS = {
  stopped: "You stopped this answer.",
  left: "The page was left or loaded again while this answer came.",
};

const GUESS = "Provisional: the drafter wrote this from the passages alone. The target has yet to confirm or correct it.";

export class TurnView {
  /**
   * @param {object} turn
   * @param {function} again asks the question again
   */
  constructor(turn, again) {
    this.turn = turn;
    this.again = again;
    this.tokens = new Tokens();
    this.stage = make("span", { className: "waiting" }, "Waiting for the server");
    this.bar = make("progress", { aria: { label: "Reading of the prompt" }, hidden: true });
    this.reading = make("p", { className: "reading faint" }, this.stage, this.bar);
    this.note = make("p", { className: "reading faint", hidden: true }, GUESS);
    this.answer = make("div", {}, this.reading, this.note, this.tokens.element, this.tokens.legend, this.tokens.inspector);
    this.element = make("article", { className: "turn", aria: { label: `Question: ${turn.question.slice(0, 100)}` } },
      make("h2", {}, turn.question));
    if (turn.documents.length) this.element.append(documentLine(turn.documents));
    this.element.classList.toggle("with-sources", turn.documents.length > 0); // room for them from the start
    this.element.append(this.answer);
    if (turn.state !== "running") this.end();
  }

  /** Show how far the prompt has been read. */
  progress(progress) {
    const { done, total } = progress;
    this.stage.textContent = progressWords(progress);
    this.bar.hidden = total <= 1;
    if (total > 1) Object.assign(this.bar, { max: total, value: done });
  }

  /** Show a piece of the drafter's own answer, until the answer itself replaces it. */
  guess(text) {
    this.note.hidden = false;
    this.tokens.guess(text);
  }

  append(tokens) {
    this.note.hidden = true;
    this.reading.hidden = true;
    this.tokens.append(tokens);
  }

  /** Show the turn as it ended. */
  end() {
    const { turn } = this;
    const opened = (source) => openPassage(source);
    this.reading.remove();
    this.note.remove();
    this.tokens.show(turn.text, turn.tokens, marksOf(turn.sources, opened));
    this.answer.append(...this.footer());
    this.element.classList.toggle("with-sources", turn.sources.length > 0);
    if (turn.sources.length) {
      const pointed = (source) => this.tokens.cite(turn.text, source?.stretches ?? []);
      this.element.append(sourceList(turn.sources, { opened, pointed }));
    }
  }

  footer() {
    const { turn } = this;
    const summary = summaryOf(turn);
    const parts = [];
    if (summary) parts.push(make("p", { className: "summary" }, summary));
    if (turn.state === "done" && turn.text.trim() === "") {
      parts.push(make("p", { className: "summary" }, "The model ended the answer without any text."));
    }
    if (turn.state in ENDS) parts.push(make("p", { className: "summary" }, ENDS[turn.state]));
    if (turn.failure !== null) {
      const [title, text] = failureWords(turn.failure);
      const words = make("div", { className: "notice" }, make("p", {}, make("b", {}, title)), make("p", {}, text));
      words.setAttribute("role", "alert");
      parts.push(words);
    }
    if (turn.state !== "done") {
      const button = make("button", { type: "button", className: "small" }, "Ask again");
      button.addEventListener("click", this.again);
      parts.push(button);
    }
    const table = statisticsTable(turn);
    return table === null ? parts : [...parts, table];
  }
}

function documentLine(documents) {
  const names = documents.flatMap(({ name }, index) => [index ? ", " : "", make("bdi", {}, name)]);
  return make("p", { className: "about" }, "about ", ...names);
}
