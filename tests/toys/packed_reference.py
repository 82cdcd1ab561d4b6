"""Quantised weights dequantised number by number, in plain Python, as their formats are published."""

from tests.toys.packed_checkpoints import AWQ_ORDER, FP4


def _level(word, place, bits):
    return (int(word) & 0xFFFFFFFF) >> (place * bits) & (2**bits - 1)


def gptq(parts, settings):
    bits, less_one = settings["bits"], settings["checkpoint_format"] == "gptq"
    words, zeros, scales = (parts[name].tolist() for name in ("qweight", "qzeros", "scales"))
    groups, each = parts["g_idx"].tolist(), 32 // bits

    def weight(row, column):
        group = groups[column]
        zero = _level(zeros[group][row // each], row % each, bits) + less_one
        return scales[group][row] * (_level(words[column // each][row], column % each, bits) - zero)

    return _matrix(weight, len(words[0]), len(groups))


def awq(parts, settings):
    words, zeros, scales = (parts[name].tolist() for name in ("qweight", "qzeros", "scales"))
    place = [AWQ_ORDER.index(output) for output in range(8)]

    def weight(row, column):
        group = column // settings["group_size"]
        levels = (_level(each[row // 8], place[row % 8], 4) for each in (words[column], zeros[group]))
        level, zero = levels
        return scales[group][row] * (level - zero)

    return _matrix(weight, len(words[0]) * 8, len(words))


def compressed(parts, settings):
    own = settings["config_groups"]["group_0"]["weights"]
    bits, middle = own["num_bits"], 2 ** (own["num_bits"] - 1)
    each, scales = 32 // bits, parts["weight_scale"].tolist()
    packed = "weight_packed" in parts
    held = parts["weight_packed" if packed else "weight"].tolist()
    rows, columns = parts["weight_shape"].tolist() if packed else parts["weight"].shape
    zeros = parts["weight_zero_point"].tolist() if "weight_zero_point" in parts else None

    def weight(row, column):
        group = column // (own["group_size"] or columns)
        level = _level(held[row][column // each], column % each, bits) - middle if packed else held[row][column]
        zero = 0
        if zeros is not None:
            zero = _level(zeros[row // each][group], row % each, bits) - middle if packed else zeros[row][group]
        return scales[row][group] * (level - zero)

    return _matrix(weight, rows, columns)


def fp8(parts, settings):
    values = parts["weight"].tolist() if "weight" in parts else None
    scale = parts.get("weight_scale_inv", parts.get("weight_scale"))
    block = settings.get("weight_block_size")
    scales = scale.tolist()

    def weight(row, column):
        if scale.ndim == 0:
            return number(values[row][column]) * scales
        if block:
            return number(values[row][column]) * scales[row // block[0]][column // block[1]]
        return number(values[row][column]) * scales[row][0]

    def number(byte):
        sign, power, fraction = byte >> 7, byte >> 3 & 15, byte & 7
        size = fraction / 8 * 2**-6 if power == 0 else (1 + fraction / 8) * 2 ** (power - 7)
        return -size if sign else size

    return _matrix(weight, len(values), len(values[0]))


def mxfp4(blocks, scales):
    """Return (K, O) of one expert, whose blocks are (O, K / 32, 16)."""
    held, powers = blocks.tolist(), scales.tolist()

    def weight(column, row):
        byte = held[row][column // 32][column % 32 // 2]
        code = byte >> 4 if column % 2 else byte & 15
        return (-1 if code > 7 else 1) * FP4[code % 8] * 2.0 ** (powers[row][column // 32] - 127)

    return _matrix(weight, len(held[0]) * 32, len(held))


def _matrix(weight, rows, columns):
    return [[weight(row, column) for column in range(columns)] for row in range(rows)]
