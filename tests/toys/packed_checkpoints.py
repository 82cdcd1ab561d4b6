"""Tiny models quantised into the published layouts of GPTQ, AWQ, compressed-tensors, FP8 and MXFP4.

Weights are rounded to the nearest level, without calibration: what is tested is that a file is read as it was meant.
"""

import json

import torch
from safetensors.torch import load_file, save_file

from tests.toys.models import byte_tokenizer

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # outputs of a word, the lowest bits first
FP4 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def of_layers(name, weight):
    routes = name.endswith(("gate.weight", "expert_gate.weight"))  # tools leave what chooses experts alone
    return ".layers." in name and weight.ndim == 2 and not routes


def save_packed(folder, model, make, settings, only=of_layers, names="published"):
    """Save a model with its layers' matrices quantised; return the folder.

    `names`: "published", or "saved" for those that transformers saves the model under, or what returns them.
    """
    folder.mkdir(exist_ok=True)
    tensors = {}
    found = names(model) if callable(names) else published(model) if names == "published" else saved(model, folder)
    for name, weight in found.items():
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        if only(name, weight):
            stem = name.removesuffix("weight")
            made = {f"{stem}{end}": tensor for end, tensor in make(weight).items()}
            tensors |= {key: tensor.contiguous() for key, tensor in made.items()}
        else:
            tensors[name] = weight.clone()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    model.config.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = [type(model).__name__]
    if settings is not None:
        config["quantization_config"] = settings
    (folder / "config.json").write_text(json.dumps(config))
    byte_tokenizer().save_pretrained(folder)
    return folder


def saved(model, folder):
    """Return a model's weights under the names that transformers saves it under."""
    model.save_pretrained(folder)
    return load_file(folder / "model.safetensors")


def published(model):
    """Return a model's weights under the names of published checkpoints: most have a matrix for each expert."""
    kind, found = model.config.model_type, {}
    for name, weight in model.state_dict().items():
        if ".mlp.experts." not in name or kind == "gpt_oss":
            mixtral = kind == "mixtral" and ".mlp." in name
            found[name.replace(".mlp.", ".block_sparse_moe.") if mixtral else name] = weight
            continue
        module, _, part = name.rpartition(".")
        names = {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"}
        if kind == "mixtral":
            module, names = module.replace(".mlp.", ".block_sparse_moe."), {"gate": "w1", "up": "w3", "down": "w2"}
        for index, own in enumerate(weight):
            parts = {"down": own} if part == "down_proj" else dict(zip(("gate", "up"), own.chunk(2), strict=True))
            found |= {f"{module}.{index}.{names[end]}.weight": each for end, each in parts.items()}
    return found


def packed_words(levels, bits, order=None):
    """Return (A, B * bits / 32) int32 for levels (A, B), the lowest bits first."""
    grouped = levels.long().reshape(len(levels), -1, 32 // bits)
    if order is not None:
        grouped = grouped[..., list(order)]
    words = (grouped << torch.arange(0, 32, bits)).sum(-1)
    return (words - (words >= 2**31).long() * 2**32).to(torch.int32)


def levels_of(weight, bits, group, symmetric, scales=torch.float16, group_of=None):
    """Return levels (O, K), scales (O, G) and zero points (O, G) of rounding to nearest."""
    rows, columns = weight.shape
    group = group or columns
    most = 2**bits - 1
    order = torch.arange(columns) // group if group_of is None else group_of
    scale, zero = [], []
    for index in range(columns // group):
        part = weight[:, order == index]
        if symmetric:
            scale.append(part.abs().amax(1) * 2 / most)
            zero.append(torch.full((rows,), (most + 1) // 2))
        else:
            low, high = part.amin(1).clamp(max=0), part.amax(1).clamp(min=0)
            scale.append((high - low) / most)
            zero.append((-low / scale[-1]).round().clamp(1, most).long())
    scale, zero = torch.stack(scale, 1).to(scales), torch.stack(zero, 1)
    levels = (weight / scale.float()[:, order] + zero[:, order]).round().clamp(0, most).long()
    return levels, scale, zero


def gptq(bits=4, group=32, symmetric=True, ordered=False, less_one=1):
    def make(weight):
        columns = weight.shape[1]
        width = group or columns
        group_of = torch.arange(columns) // width
        if ordered:
            group_of = group_of[torch.randperm(columns, generator=torch.Generator().manual_seed(1))]
        levels, scale, zero = levels_of(weight, bits, group, symmetric, group_of=group_of)
        return {
            "qweight": packed_words(levels, bits).t(),
            "qzeros": packed_words(zero.t() - less_one, bits),
            "scales": scale.t(),
            "g_idx": group_of.to(torch.int32),
        }

    settings = {"quant_method": "gptq", "bits": bits, "group_size": group or -1, "sym": symmetric, "desc_act": ordered}
    return make, settings | {"checkpoint_format": "gptq" if less_one else "gptq_v2"}


def awq(group=32):
    def make(weight):
        levels, scale, zero = levels_of(weight, 4, group, False)
        return {
            "qweight": packed_words(levels.t(), 4, AWQ_ORDER),
            "qzeros": packed_words(zero.t(), 4, AWQ_ORDER),
            "scales": scale.t(),
        }

    return make, {"quant_method": "awq", "bits": 4, "group_size": group, "zero_point": True, "version": "gemm"}


def compressed(bits=4, group=32, symmetric=True, packed=True, scales=torch.bfloat16):
    middle = 2 ** (bits - 1)

    def make(weight):
        levels, scale, zero = levels_of(weight, bits, group, symmetric, scales)
        made = {"weight_scale": scale}
        if packed:
            made["weight_packed"] = packed_words(levels, bits)
            made["weight_shape"] = torch.tensor(weight.shape)
        else:
            made["weight"] = (levels - middle).to(torch.int8)
        if not symmetric and packed:
            made["weight_zero_point"] = packed_words(zero.t(), bits).t()
        elif not symmetric:
            made["weight_zero_point"] = (zero - middle).to(torch.int8)
        return made

    weights = {"num_bits": bits, "type": "int", "symmetric": symmetric, "dynamic": False, "observer": "minmax"}
    weights |= {"strategy": "group", "group_size": group} if group else {"strategy": "channel", "group_size": None}
    return make, _groups(weights, "pack-quantized" if packed else "int-quantized")


def compressed_fp8(strategy="channel"):
    make, _ = fbgemm() if strategy == "channel" else fp8(None)
    name = "weight_scale" if strategy == "channel" else "weight_scale_inv"
    weights = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": strategy}

    def renamed(weight):
        made = make(weight)
        return {"weight": made["weight"], "weight_scale": made[name]}

    return renamed, _groups(weights, "float-quantized")


def _groups(weights, layout):
    group = {"targets": ["Linear"], "weights": weights, "input_activations": None, "output_activations": None}
    settings = {"quant_method": "compressed-tensors", "format": layout, "quantization_status": "compressed"}
    return settings | {"config_groups": {"group_0": group}, "ignore": ["lm_head"]}


def fp8(block=(32, 32)):
    """DeepSeek's blocks, or one scale for the whole matrix."""

    def make(weight):
        rows, columns = weight.shape
        high, wide = block or (rows, columns)
        scale = torch.empty(-(-rows // high), -(-columns // wide))
        scaled = weight.clone()
        for i in range(scale.shape[0]):
            for j in range(scale.shape[1]):
                part = scaled[i * high : (i + 1) * high, j * wide : (j + 1) * wide]
                scale[i, j] = part.abs().max() / 448
                part /= scale[i, j]
        scale = scale if block else scale.reshape(())
        return {"weight": scaled.to(torch.float8_e4m3fn), "weight_scale_inv": scale}

    settings = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic"}
    return make, settings | {"weight_block_size": list(block) if block else None}


def fbgemm():
    def make(weight):
        scale = weight.abs().amax(1, keepdim=True) / 448
        return {"weight": (weight / scale).to(torch.float8_e4m3fn), "weight_scale": scale}

    return make, {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0}


def mxfp4():
    """For experts (N, K, O), as GPT-OSS publishes them."""

    def make(weight):
        grouped = weight.transpose(1, 2).unflatten(2, (-1, 32))  # (N, O, K / 32, 32)
        power = (grouped.abs().amax(-1) / 6).log2().ceil()
        scaled = grouped / 2 ** power[..., None]
        near = (scaled.abs()[..., None] - torch.tensor(FP4)).abs().argmin(-1) + 8 * (scaled < 0)
        return {
            "_blocks": (near[..., ::2] | near[..., 1::2] << 4).to(torch.uint8),
            "_scales": (power + 127).to(torch.uint8),
        }

    return make, {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"]}
