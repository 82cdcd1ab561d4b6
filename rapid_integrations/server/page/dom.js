/**
 * Make an element. Children that are strings become text nodes: nothing on this page parses HTML.
 *
 * @param {string} tag
 * @param {object} properties of the element; `aria` holds ARIA attributes without their prefix.
 */
export function make(tag, { aria = {}, ...properties } = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  for (const [name, value] of Object.entries(aria)) element.setAttribute(`aria-${name}`, value);
  element.append(...children);
  return element;
}

export const byId = (id) => document.getElementById(id);

/** Tell a screen reader what has happened. */
export function announce(text) {
  if (byId("status").textContent !== text) byId("status").textContent = text; // it would be read out again
}
