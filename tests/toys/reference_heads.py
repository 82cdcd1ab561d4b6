"""What heads compute, written down slowly from the papers: every row by itself, in float64, without any cache."""

import math

import torch


def rms(x, weight, eps=1e-5, offset=0.0):
    return x / math.sqrt(float((x * x).mean()) + eps) * (weight.double() + offset)


def matrix(tensors, name, x):
    out = tensors[f"{name}.weight"].double() @ x
    return out + tensors[f"{name}.bias"].double() if f"{name}.bias" in tensors else out


def rotated(x, position, theta, turned=None):
    """Turn pairs (i, i + n / 2) of the first n numbers as complex numbers."""
    n = turned or len(x)
    out = x.clone()
    for pair in range(n // 2):
        angle = position * theta ** (-2 * pair / n)
        z = complex(float(x[pair]), float(x[pair + n // 2])) * complex(math.cos(angle), math.sin(angle))
        out[pair], out[pair + n // 2] = z.real, z.imag
    return out


def attended(tensors, prefix, config, inputs, positions, gated=False, offset=0.0):
    """Return what the last row attends to: `inputs` are the rows that it sees, itself last."""
    heads, kv_heads, dim = config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]
    turned = int(dim * config.get("partial_rotary_factor", 1.0))
    eps = config["rms_norm_eps"]

    def split(x, name, count, norm, position):
        rows = x.view(count, -1)
        if f"{prefix}.{norm}.weight" in tensors:
            rows = torch.stack([rms(row, tensors[f"{prefix}.{norm}.weight"], eps, offset) for row in rows])
        if position is not None:
            rows = torch.stack([rotated(row, position, config["rope_theta"], turned) for row in rows])
        return rows

    query = matrix(tensors, f"{prefix}.q_proj", inputs[-1]).view(heads, -1)
    gate = query[:, dim:].reshape(-1) if gated else None
    query = split(query[:, :dim].reshape(-1), "q", heads, "q_norm", positions[-1])
    keys = [
        split(matrix(tensors, f"{prefix}.k_proj", x), "k", kv_heads, "k_norm", at)
        for x, at in zip(inputs, positions, strict=True)
    ]
    values = [matrix(tensors, f"{prefix}.v_proj", x).view(kv_heads, dim) for x in inputs]
    mixed = []
    for head in range(heads):
        own = head * kv_heads // heads
        scores = torch.stack([query[head] @ key[own] / math.sqrt(dim) for key in keys]).softmax(0)
        mixed.append(sum(share * value[own] for share, value in zip(scores, values, strict=True)))
    mixed = torch.cat(mixed)
    return matrix(tensors, f"{prefix}.o_proj", mixed if gate is None else mixed * gate.sigmoid())


def gated_mlp(tensors, prefix, x):
    gate, up = (matrix(tensors, f"{prefix}.{name}_proj", x) for name in ("gate", "up"))
    return matrix(tensors, f"{prefix}.down_proj", gate * gate.sigmoid() * up)


def guesses(step, pairs, drafted, embedding):
    """Return the logits behind committed text and behind each drafted token.

    Args:
        step: (inputs so far, positions, embedded token, state) -> (state, logits), where `inputs` gets the new row.
        pairs: (position, token behind it, state) of committed rows.
        drafted: tokens that follow.
        embedding: (V, E).
    """
    inputs, positions, logits = [], [], []
    for position, token, state in pairs:
        positions.append(position)
        guessed, last = step(inputs, positions, embedding[token].double(), state.double(), True)
    logits.append(last)
    for token in drafted:
        positions.append(positions[-1] + 1)
        guessed, last = step(inputs, positions, embedding[token].double(), guessed, False)
        logits.append(last)
    return torch.stack(logits)


def eagle3_step(tensors, config, layer="midlayer"):
    """Return the step of an EAGLE-3 head."""

    def step(inputs, positions, embedded, state, committed):
        if committed:
            state = matrix(tensors, "fc", state)
        normed = rms(state, tensors[f"{layer}.hidden_norm.weight"])
        inputs.append(torch.cat([rms(embedded, tensors[f"{layer}.input_layernorm.weight"]), normed]))
        residual = normed if config.get("norm_before_residual") else state
        x = residual + attended(tensors, f"{layer}.self_attn", config, inputs, positions)
        x = x + gated_mlp(tensors, f"{layer}.mlp", rms(x, tensors[f"{layer}.post_attention_layernorm.weight"]))
        return x, matrix(tensors, "lm_head", rms(x, tensors["norm.weight"]))

    return step


def eagle1_step(tensors, config, head):
    """Return the step of an EAGLE-1 head; `head` (V, E) is the target's."""

    def step(inputs, positions, embedded, state, committed):
        x = matrix(tensors, "fc", torch.cat([embedded, state]))
        inputs.append(x)
        x = x + attended(tensors, "layers.0.self_attn", config, inputs, positions)
        x = x + gated_mlp(tensors, "layers.0.mlp", rms(x, tensors["layers.0.post_attention_layernorm.weight"]))
        return x, head.double() @ x

    return step


def silu(x):
    return x * x.sigmoid()


def medusa_logits(tensors, state, step, layers):
    """Return the logits of Medusa's network `step`, in its authors' layout."""
    x = state.double()
    for layer in range(layers):
        x = x + silu(matrix(tensors, f"{step}.{layer}.linear", x))
    return matrix(tensors, f"{step}.{layers}", x)


def hydra_logits(tensors, config, pairs, drafted, embedding):
    """Return the logits of Hydra's network behind `drafted` tokens; `pairs` as in `guesses`."""
    states, positions = [state.double() for *_, state in pairs], [position for position, *_ in pairs]
    x = states[-1]
    if "prefix_embeding_layer.norm.weight" in tensors:
        layer = "prefix_embeding_layer.layers.0"
        rows = [rms(state, tensors[f"{layer}.input_layernorm.weight"]) for state in states]
        x = x + attended(tensors, f"{layer}.self_attn", config, rows, positions)
        x = x + gated_mlp(tensors, f"{layer}.mlp", rms(x, tensors[f"{layer}.post_attention_layernorm.weight"]))
        x = rms(x, tensors["prefix_embeding_layer.norm.weight"])
    step = len(drafted)
    x = torch.cat([x, *(embedding[token].double() for token in (pairs[-1][1], *drafted))])
    for layer in range(config["hydra_num_layers"]):
        name = f"hydra_mlp.{step}.{1 + 2 * layer}"
        passed = x if layer else matrix(tensors, f"{name}.res_connection", x)
        x = passed + silu(matrix(tensors, f"{name}.linear", x))
    return matrix(tensors, f"hydra_lm_head.{step}.1", x)
