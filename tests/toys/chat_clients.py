"""Prompts as chat programs make them of retrieved passages: their layouts, with shorter rules.

The tags, headings, their order and what is filled in are those of the programs; the sentences are the tests' own.
"""

_OPEN_WEBUI = """### Task:
Answer the user's query from the given context, with inline citations of the form [id] **only if the <source> tag \
has an id attribute** (e.g., <source id="1">).

### Guidelines:
- Say so if you do not know the answer, and ask if you are unsure.
- Use the language of the user's query.
- **Cite with [id] (e.g., [1], [2]) only if the <source> tag has an id attribute.**
- Do not cite if the <source> tag has none.
- Use no XML tags in the answer.

### Example of Citation:
* "The study found that the method is 20% faster [1]."

### Output:
Give a clear and direct answer, with citations only if the <source> tag with an id attribute is in the context.

<context>
{context}
</context>
"""

_LIBRECHAT_RULES = """Use the context as what you have learned, in order to answer the user better.

Follow these guidelines in your answer:
- If you don't know the answer, say that you don't know.
- If you are unsure how to answer, ask.
- Do not mention that the information comes from the context.
"""


def open_webui(passages, query, where):
    """Open WebUI (RAG_TEMPLATE): the template around the query, before it, or as a system message."""
    context = "\n".join(f'<source id="{n}" name="handbook.md">{text}</source>' for n, text in enumerate(passages, 1))
    filled = _OPEN_WEBUI.format(context=context)
    if where == "system":
        return [{"role": "system", "content": filled}, {"role": "user", "content": query}]
    behind = f"\n<user_query>\n{query}\n</user_query>\n" if where == "around" else f"\n{query}"
    return [{"role": "user", "content": filled + behind}]


def librechat(passages, query, whole):
    """LibreChat (createContextHandlers.js): a system message with found passages, or with the whole file."""
    if whole:
        text = "\n\n".join(passages)
        system = f"""The user has attached a file to the conversation:

          <file>
            <filename>handbook.md</filename>
            <context>
{text}
            </context>
          </file>
          {_LIBRECHAT_RULES}"""
    else:
        item = "\n            <contextItem>\n              <![CDATA[{}]]>\n            </contextItem>"
        items = "".join(item.format(text) for text in passages)
        system = f"""The user has attached a file to the conversation:

              <file>
                <filename>handbook.md</filename>
                <type>text/markdown</type>
              </file>

        A semantic search was made with the user's message, and found the following inside <context></context> XML tags.

        <context>
          <file>
            <filename>handbook.md</filename>
            <context>{items}
            </context>
          </file>
        </context>

        {_LIBRECHAT_RULES}"""
    return [{"role": "system", "content": system}, {"role": "user", "content": query}]
