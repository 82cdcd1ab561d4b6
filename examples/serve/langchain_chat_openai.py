"""Ask `rapid serve` with LangChain's ChatOpenAI. The context stands in the prompt, and RAPID finds it by itself.

pip install langchain-openai
rapid serve --quantization int4        # in another terminal
python examples/serve/langchain_chat_openai.py
"""

import os
from pathlib import Path

from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI

llm = ChatOpenAI(
    base_url=os.environ.get("RAPID_URL", "http://127.0.0.1:8000/v1"),
    api_key=os.environ.get("RAPID_API_KEY", "none"),
    model=os.environ.get("RAPID_MODEL", "smollm2-135m-instruct"),
    max_tokens=64,
    extra_body={"rapid": {"statistics": True}},
)
prompt = ChatPromptTemplate.from_template("Here is a handbook.\n\n{context}\n\nAnswer from it: {question}")
handbook = (Path(__file__).parents[1] / "handbook.md").read_text(encoding="utf-8")
question = "What is the annual training budget of an employee?"

for piece in (prompt | llm).stream({"context": handbook, "question": question}):
    print(piece.content, end="", flush=True)
print()
