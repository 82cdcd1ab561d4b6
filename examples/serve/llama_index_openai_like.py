"""Ask `rapid serve` with LlamaIndex's OpenAILike, about a text that comes with the request.

pip install llama-index-llms-openai-like
rapid serve --quantization int4        # in another terminal
python examples/serve/llama_index_openai_like.py
"""

import os
from pathlib import Path

from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike

handbook = (Path(__file__).parents[1] / "handbook.md").read_text(encoding="utf-8")
llm = OpenAILike(
    api_base=os.environ.get("RAPID_URL", "http://127.0.0.1:8000/v1"),
    api_key=os.environ.get("RAPID_API_KEY", "none"),
    model=os.environ.get("RAPID_MODEL", "smollm2-135m-instruct"),
    is_chat_model=True,
    context_window=8192,
    max_tokens=64,
    temperature=0,  # LlamaIndex sends 0.1 otherwise
    additional_kwargs={"extra_body": {"rapid": {"documents": [{"text": handbook, "name": "handbook.md"}]}}},
)
question = "What is the annual training budget of an employee?"

for piece in llm.stream_chat([ChatMessage(role="user", content=question)]):
    print(piece.delta or "", end="", flush=True)
print()
