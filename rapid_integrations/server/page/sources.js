// The passages that an answer rests on.

import { make } from "./dom.js";

const FEW = 4; // passages that are shown at once if the answer cites none

/**
 * Return the sources of an answer as this page keeps them: one for each passage, with the stretches of the answer that
 * it supports. Those stretches are empty if the server does not know them; the best passages come first then.
 *
 * @param {object[]} given by the server
 * @param {object[]} documents that were sent with the question, each {id, name}
 */
export function sourcesOf(given, documents) {
  const found = new Map();
  for (const source of given) {
    const index = source.index ?? source.context;
    const document = documents[index];
    const passage = `${index} ${source.start} ${source.end}`;
    if (!found.has(passage)) {
      found.set(passage, {
        number: found.size + 1,
        file: source.file_id ?? document?.id ?? null,
        name: source.document ?? document?.name ?? "the conversation",
        place: source.page ? `page ${source.page}` : (source.label ?? ""),
        start: source.start,
        end: source.end,
        text: source.text,
        score: source.score ?? 0,
        stretches: [],
      });
    }
    if (source.answer_end > source.answer_start) {
      found.get(passage).stretches.push([source.answer_start, source.answer_end]);
    }
  }
  const sources = [...found.values()];
  if (sources.some((source) => source.stretches.length)) return sources;
  sources.sort((one, other) => other.score - one.score);
  sources.forEach((source, index) => { source.number = index + 1; });
  return sources;
}

const label = (source) => `${source.name}${source.place ? `, ${source.place}` : ""}`;

/**
 * Return the list of sources.
 *
 * @param {object[]} sources
 * @param {object} told `opened(source)` after a click, `pointed(source | null)` while one is pointed at or has the focus
 */
export function sourceList(sources, told) {
  const cited = sources.some((source) => source.stretches.length);
  const items = sources.map((source) => {
    const place = make("span", { className: "place" }, source.place ? ` ${source.place}` : "");
    const button = make("button", { type: "button", className: "source" },
      make("span", { className: "name" }, `${source.number}. `, make("bdi", {}, source.name), place),
      make("span", { className: "text" }, source.text.trim().replace(/\s+/g, " ").slice(0, 400)));
    button.addEventListener("click", () => told.opened(source));
    for (const begin of ["pointerenter", "focus"]) button.addEventListener(begin, () => told.pointed(source));
    for (const end of ["pointerleave", "blur"]) button.addEventListener(end, () => told.pointed(null));
    return make("li", {}, button);
  });
  const more = make("button", { type: "button", className: "small", hidden: cited || sources.length <= FEW + 1 }, `Show all ${sources.length}`);
  if (!more.hidden) items.slice(FEW).forEach((item) => { item.hidden = true; });
  more.addEventListener("click", () => {
    items.forEach((item) => { item.hidden = false; });
    more.hidden = true;
    items[FEW].firstChild.focus();
  });
  const title = cited ? "Sources" : "What the drafter read";
  return make("aside", { className: "sources", aria: { label: title } }, make("h3", {}, title), make("ol", {}, ...items), more);
}

/** Return the marks of an answer: a button at the end of each stretch that a source supports. */
export function marksOf(sources, opened) {
  return sources
    .flatMap((source) => source.stretches.map(([, at]) => ({ at, source })))
    .sort((one, other) => one.at - other.at || one.source.number - other.source.number)
    .map(({ at, source }) => {
      const button = make("button", { type: "button", className: "marker", title: label(source), aria: { label: `Source ${source.number}: ${label(source)}` } },
        String(source.number));
      button.addEventListener("click", () => opened(source));
      return { at, button };
    });
}
