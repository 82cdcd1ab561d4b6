// The server counts characters as Unicode code points; JavaScript counts UTF-16 units. They differ after an emoji.

const BEYOND = /[\ud800-\udbff][\udc00-\udfff]/;

/** Return the UTF-16 offsets of ascending code point offsets in a text. */
export function unitsOf(text, offsets) {
  if (!BEYOND.test(text)) return offsets.map((offset) => Math.min(offset, text.length));
  const found = [];
  let points = 0;
  let units = 0;
  for (const offset of offsets) {
    while (points < offset && units < text.length) {
      units += text.codePointAt(units) > 0xffff ? 2 : 1;
      points += 1;
    }
    found.push(units);
  }
  return found;
}
