// The text of an answer, each token coloured by who proposed it and who decided it.

import { make } from "./dom.js";
import { unitsOf } from "./offsets.js";
import { ORIGINS, chance, visible } from "./words.js";

/** Return a token as this page keeps it, from what the server says of it. */
export function tokenOf({ text, proposer, decided, p, q, p_hat, changed_by_retrieval }) {
  const origin = decided === "accepted" ? proposer : decided;
  return { text, origin: Object.hasOwn(ORIGINS, origin) ? origin : "other", p, q, p_hat, changed: changed_by_retrieval };
}

const CHANGED = "Retrieval decided: the target alone would rather have written something else.";
const HINT = "Point at a token, or step to it with the arrow keys, to see where it came from.";

export class Tokens {
  constructor() {
    this.tokens = [];
    this.guessed = null; // the element of the provisional text
    this.element = make("div", { className: "answer", tabIndex: 0, aria: { label: "Answer. The arrow keys step through its tokens." } });
    this.element.setAttribute("role", "group");
    this.inspector = make("p", { className: "inspector", hidden: true, aria: { live: "polite" } }, HINT);
    this.legend = make("ul", { className: "legend", aria: { label: "Origins of the tokens" } });
    this.element.addEventListener("pointerover", ({ target }) => this.inspect(target.closest(".token")));
    this.element.addEventListener("click", ({ target }) => this.inspect(target.closest(".token")));
    this.element.addEventListener("keydown", (event) => this.step(event));
    this.element.addEventListener("blur", () => this.inspect(null));
  }

  /** Append to the provisional text, which stands behind the tokens until they have replaced it. */
  guess(text) {
    if (this.guessed === null) {
      this.guessed = make("span", { className: "provisional" });
      this.element.append(this.guessed);
    }
    this.guessed.textContent += text;
  }

  /** Take from the provisional text what a token confirms; all of it goes with the first token that differs. */
  confirm(text) {
    if (this.guessed === null || text === "") return;
    const rest = this.guessed.textContent;
    this.guessed.textContent = rest.startsWith(text) ? rest.slice(text.length) : "";
  }

  append(tokens) {
    for (const token of tokens) {
      this.confirm(token.text);
      const span = this.span(token, this.tokens.length, token.text);
      if (this.guessed === null) this.element.append(span);
      else this.guessed.before(span);
      this.tokens.push(token);
    }
    if (tokens.length) this.showLegend();
  }

  /**
   * Show the whole answer.
   *
   * @param {string} text of the answer
   * @param {object[]} tokens whose texts it consists of; what does not fit to the text is shown without colours
   * @param {object[]} marks buttons to insert, each {at, button}, ascending; `at` counts code points
   */
  show(text, tokens, marks) {
    this.tokens = tokens.map((token) => token.text).join("").startsWith(text) ? tokens : [];
    const places = unitsOf(text, marks.map((mark) => mark.at));
    const parts = [];
    let at = 0;
    let next = 0; // mark to insert
    const put = (length, made) => {
      const end = Math.min(at + length, text.length);
      for (; next < marks.length && places[next] <= end; next += 1) {
        if (places[next] > at) parts.push(made(text.slice(at, places[next])));
        at = Math.max(at, places[next]);
        parts.push(marks[next].button);
      }
      if (end > at) parts.push(made(text.slice(at, end)));
      at = end;
    };
    this.tokens.forEach((token, index) => put(token.text.length, (part) => this.span(token, index, part)));
    put(text.length, (part) => part);
    this.element.replaceChildren(...parts);
    this.showLegend();
  }

  /** Mark the tokens of stretches of the answer, each [start, end] in code points. */
  cite(text, stretches) {
    const bounds = stretches.flatMap(([start, end]) => unitsOf(text, [start, end]));
    let at = 0;
    for (const span of this.element.querySelectorAll(".token")) {
      const end = at + span.textContent.length;
      let cited = false;
      for (let each = 0; each < bounds.length; each += 2) cited ||= bounds[each] < end && at < bounds[each + 1];
      span.classList.toggle("cited", cited);
      at = end;
    }
  }

  span(token, index, text) {
    const span = make("span", { className: `token ${token.origin}${token.changed ? " changed" : ""}` }, text);
    span.dataset.index = index;
    return span;
  }

  step(event) {
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (event.target !== this.element || event.ctrlKey || event.metaKey || event.altKey) return;
    const spans = [...this.element.querySelectorAll(".token")];
    if (by === undefined || spans.length === 0) return;
    event.preventDefault();
    const now = spans.findIndex((span) => span.classList.contains("current"));
    const next = now < 0 ? (by > 0 ? 0 : spans.length - 1) : Math.min(Math.max(now + by, 0), spans.length - 1);
    this.inspect(spans[next]);
    spans[next].scrollIntoView({ block: "nearest" });
  }

  /** Say where a token came from. */
  inspect(span) {
    this.element.querySelector(".current")?.classList.remove("current");
    if (span === null) return this.inspector.replaceChildren(HINT);
    span.classList.add("current");
    const token = this.tokens[span.dataset.index];
    const values = [["target", token.p], ["drafter", token.q], ["together", token.p_hat]]
      .filter(([, value]) => value !== null && value !== undefined)
      .map(([who, value]) => `${who} ${chance(value)}`);
    const changed = token.changed ? ` ${CHANGED}` : "";
    const [name, sentence] = ORIGINS[token.origin];
    this.inspector.replaceChildren(
      make("b", {}, visible(token.text)), ` ${name}. ${sentence}${changed} `,
      values.length ? `Probabilities: ${values.join(", ")}.` : "",
    );
  }

  showLegend() {
    const all = this.tokens.length;
    this.inspector.hidden = all === 0;
    const numbers = Object.keys(ORIGINS)
      .map((origin) => [origin, this.tokens.filter((token) => token.origin === origin).length])
      .filter(([, number]) => number > 0);
    const lines = numbers.map(([origin, number]) =>
      make("li", { title: ORIGINS[origin][1] }, make("span", { className: `chip ${origin}` }, ORIGINS[origin][0]),
        ` ${number} (${Math.round((100 * number) / all)}%)`));
    const changed = this.tokens.filter((token) => token.changed).length;
    if (changed) {
      lines.push(make("li", { title: CHANGED }, make("span", { className: "token changed" }, "retrieval decided"), ` ${changed}`));
    }
    this.legend.replaceChildren(...lines);
  }
}
