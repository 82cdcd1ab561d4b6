"""HTTP servers that answer as vLLM, llama.cpp and SGLang do, and compute what they say from a small model.

Forms of the answers: vLLM's `CompletionLogProbs` (docs.vllm.ai, openai/completion/protocol), with the token that was
drawn beside the best ones; llama-server's `completion_probabilities` with ids, as its build 11549 gives them; SGLang's
`meta_info` with [log-probability, id, text], the first input position empty.
"""

import torch

BEST = 20


class Writer:
    """Greedy or sampled continuations of a text, and the distribution at each position; no cache."""

    def __init__(self, model, vocabulary):
        self.model, self.vocabulary = model, vocabulary
        self.asked = []  # bodies
        self._generator = torch.Generator().manual_seed(1)

    @torch.no_grad()
    def logprobs(self, ids):
        return torch.log_softmax(self.model(torch.tensor([ids])).logits[0].float(), dim=-1)

    def write(self, ids, tokens, temperature):
        written, rows = [], []
        for _ in range(tokens):
            row = self.logprobs([*ids, *written])[-1]
            rows.append(row)
            best = row.topk(BEST)
            if temperature == 0:
                written.append(int(row.argmax()))
            else:
                q = torch.softmax(best.values / temperature, dim=-1)
                written.append(int(best.indices[torch.multinomial(q, 1, generator=self._generator)]))
        return written, rows


def routes(writer, kind):
    """Return the routes of a server of a kind: "vllm", "llama.cpp", "sglang"."""
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    def best(row, count, *more):
        found = row.topk(count)
        pairs = dict(zip(found.indices.tolist(), found.values.tolist(), strict=True))
        return pairs | {token: float(row[token]) for token in more}

    def choice(index, ids, body):
        tokens, rows = writer.write(ids, body["max_tokens"], body["temperature"])
        count = body["logprobs"]
        if kind == "vllm":
            logprobs = {
                "tokens": [f"token_id:{token}" for token in tokens],
                "token_logprobs": [float(row[token]) for token, row in zip(tokens, rows, strict=True)],
                "top_logprobs": [
                    {f"token_id:{one}": value for one, value in best(row, count, token).items()}
                    for token, row in zip(tokens, rows, strict=True)
                ],
            }
        else:
            logprobs = {
                "content": [
                    {
                        "id": token,
                        "token": "?",
                        "bytes": [63],
                        "logprob": float(row[token]),
                        "top_logprobs": [
                            {"id": one, "token": "?", "bytes": [63], "logprob": value}
                            for one, value in best(row, count).items()
                        ],
                    }
                    for token, row in zip(tokens, rows, strict=True)
                ]
            }
        return {"index": index, "text": "?", "logprobs": logprobs, "finish_reason": "length"}

    async def completions(request):
        body = await request.json()
        writer.asked.append(body)
        if body["logprobs"] > BEST:
            message = f"Requested sample logprobs of {body['logprobs']}, which is greater than max allowed: {BEST}"
            return JSONResponse({"error": {"message": message, "type": "BadRequestError", "code": 400}}, 400)
        choices = [choice(index, ids, body) for index, ids in enumerate(body["prompt"])]
        return JSONResponse({"object": "text_completion", "choices": choices[::-1]})  # in any order

    async def generate(request):
        body = await request.json()
        writer.asked.append(body)
        answers = []
        for place, ids in enumerate(body["input_ids"]):
            sampling, start = body["sampling_params"][place], body["logprob_start_len"][place]
            tokens, rows = writer.write(ids, sampling["max_new_tokens"], sampling["temperature"])
            read = writer.logprobs(ids)
            top = [
                None,
                *([[v, i, None] for i, v in best(read[at], BEST).items()] for at in range(start, len(ids) - 1)),
            ]
            meta = {
                "input_top_logprobs": top,
                "output_token_logprobs": [[float(row[t]), t, None] for t, row in zip(tokens, rows, strict=True)],
                "output_top_logprobs": [[[v, i, None] for i, v in best(row, BEST).items()] for row in rows],
            }
            answers.append({"text": "?", "output_ids": tokens, "meta_info": meta})
        return JSONResponse(answers)

    async def tokenize(request):
        body = await request.json()
        text = body["content"] if kind == "llama.cpp" else body["prompt"]
        return JSONResponse({"tokens": writer.vocabulary.encode(text)})

    async def models(request):
        meta = {"meta": {"n_vocab": 260, "n_ctx_train": 2048, "n_params": 7, "size": 9}} if kind == "llama.cpp" else {}
        return JSONResponse({"object": "list", "data": [{"id": "tiny", "max_model_len": 2048, **meta}]})

    async def info(request):
        return JSONResponse({"model_path": "tiny", "is_generation": True})

    return [
        Route("/v1/completions", completions, methods=["POST"]),
        Route("/generate", generate, methods=["POST"]),
        Route("/tokenize", tokenize, methods=["POST"]),
        Route("/v1/models", models),
        Route("/get_model_info", info),
    ]
