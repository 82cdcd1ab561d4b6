"""Ask `rapid serve` about a document with the `openai` package: upload it once, then ask as often as you like.

pip install openai
rapid serve --quantization int4        # in another terminal
python examples/serve/openai_package.py
"""

import os
import time
from pathlib import Path

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("RAPID_URL", "http://127.0.0.1:8000/v1"),
    api_key=os.environ.get("RAPID_API_KEY", "none"),  # a server without keys takes any
)
model = client.models.list().data[0].id

handbook = client.files.create(file=Path(__file__).parents[1] / "handbook.md", purpose="assistants")
while client.files.retrieve(handbook.id).status == "uploaded":
    time.sleep(0.2)

for question in ("What is the annual training budget of an employee?", "What is the allowance for a duty week?"):
    stream = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": question}],
        max_tokens=64,
        stream=True,
        extra_body={"rapid": {"documents": [{"file_id": handbook.id}], "statistics": True}},
    )
    print(f"\n{question}")
    for chunk in stream:
        for choice in chunk.choices:
            print(choice.delta.content or "", end="", flush=True)
        rapid = (chunk.model_extra or {}).get("rapid") or {}
        if "statistics" in rapid:
            cached, sources = rapid["statistics"]["cached_prompt_tokens"], len(rapid["sources"])
            print(f"\n({cached} tokens were read before; the drafter read {sources} passages)")

client.files.delete(handbook.id)
client.close()
