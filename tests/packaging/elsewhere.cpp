// Calls a library of kernels with fixed inputs, and writes what it computes: where there is no Python, under an emulator.
//
// elsewhere LIBRARY OUT: OUT gets "name count\n" and so many floats for each result. It ends with 1 if a row has other bits
// in company than alone. test_other_processors.py compares results with those of this machine's own kernels.

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "interface.h"

#ifdef _WIN32  // whose header has another INT8
extern "C" __declspec(dllimport) void* __stdcall LoadLibraryA(const char* path);
extern "C" __declspec(dllimport) void* __stdcall GetProcAddress(void* library, const char* name);
#else
#include <dlfcn.h>
#endif

namespace {

template <class F>
F function(const char* library, const char* name) {
#ifdef _WIN32
  static void* const handle = LoadLibraryA(library);
  void* const found = handle ? GetProcAddress(handle, name) : nullptr;
#else
  static void* const handle = dlopen(library, RTLD_NOW);
  void* const found = handle ? dlsym(handle, name) : nullptr;
#endif
  if (!found) std::fprintf(stderr, "%s in %s cannot be loaded\n", name, library), std::exit(2);
  return (F)found;
}

using bf16 = uint16_t;

uint64_t state = 1;
uint32_t bits() {  // Knuth's constants: the same numbers everywhere
  state = state * 6364136223846793005ull + 1442695040888963407ull;
  return uint32_t(state >> 32);
}
float uniform() { return float(bits() >> 8) / 8388608.0f - 1.0f; }  // from -1 to 1, exact

float widened(bf16 x) {
  const uint32_t wide = uint32_t(x) << 16;
  float out;
  std::memcpy(&out, &wide, 4);
  return out;
}
bf16 cut(float x) {
  uint32_t wide;
  std::memcpy(&wide, &x, 4);
  return bf16(wide >> 16);
}

std::vector<bf16> numbers(size_t count, float size = 1.0f) {
  std::vector<bf16> out(count);
  for (bf16& x : out) x = cut(uniform() * size);
  return out;
}
std::vector<float> floats(size_t count, float size = 1.0f) {
  std::vector<float> out(count);
  for (float& x : out) x = uniform() * size;
  return out;
}
std::vector<uint8_t> bytes(size_t count) {
  std::vector<uint8_t> out(count);
  for (uint8_t& x : out) x = uint8_t(bits() >> 13);
  return out;
}

FILE* results;
bool differs = false;

void write(const std::string& name, const float* x, size_t count) {
  std::fprintf(results, "%s %zu\n", name.c_str(), count);
  std::fwrite(x, sizeof(float), count, results);
}
void write(const std::string& name, const std::vector<bf16>& x) {
  std::vector<float> wide;
  for (bf16 each : x) wide.push_back(widened(each));
  write(name, wide.data(), wide.size());
}
void require_same(const std::string& name, const void* a, const void* b, size_t count) {
  if (std::memcmp(a, b, count) == 0) return;
  std::fprintf(stderr, "%s: other bits in company than alone\n", name.c_str());
  differs = true;
}

struct Form {
  const char* name;
  int32_t kind, group, raw;  // columns and bytes of a block in a file
  std::vector<int> halves;   // where a block has float16 numbers
};
const std::vector<Form> FORMS = {
    {"q4_0", Q4_0, 32, 18, {0}},        {"q4_1", Q4_1, 32, 20, {0, 2}},     {"q5_0", Q5_0, 32, 22, {0}},
    {"q5_1", Q5_1, 32, 24, {0, 2}},     {"q8_0", Q8_0, 32, 34, {0}},        {"q4_k", Q4_K, 256, 144, {0, 2}},
    {"q5_k", Q5_K, 256, 176, {0, 2}},   {"q6_k", Q6_K, 256, 210, {208}},    {"mxfp4", MXFP4, 32, 17, {}},
};

const char* path;

struct Weight {  // and the memory that it lies in
  std::vector<bf16> plain, scale, bias;
  std::vector<uint8_t> raw, panels;
  Matrix matrix{};
};

Weight weight_of(const std::string& name, int rows, int columns) {
  Weight w;
  w.bias = numbers(size_t(rows), 0.1f);
  const int panels = (rows + 15) / 16, groups = columns / 32;
  w.matrix = {BF16, rows, columns, 0, nullptr, nullptr, nullptr};
  if (name == "bf16") {
    w.plain = numbers(size_t(rows) * columns, 0.2f);
    w.matrix.data = w.plain.data();
  } else if (name == "int8") {
    w.panels = bytes(size_t(panels) * groups * 512);
    w.scale = numbers(size_t(rows), 0.002f);
    w.matrix.kind = INT8;
  } else if (name == "int4") {
    w.panels = bytes(size_t(panels) * groups * 320);
    for (int g = 0; g < panels * groups; g++) {
      const std::vector<bf16> figures = numbers(32, 0.02f);
      std::memcpy(&w.panels[size_t(g) * 320 + 256], figures.data(), 64);
    }
    w.matrix.kind = INT4;
  }
  for (const Form& form : FORMS) {
    if (form.name != name) continue;
    const size_t blocks = size_t(rows) * columns / form.group;
    w.raw = bytes(blocks * form.raw);
    for (size_t i = 0; i < blocks; i++) {
      uint8_t* block = &w.raw[i * form.raw];
      for (int at : form.halves) {  // float16 of an exponent that leaves products small
        const uint16_t half = uint16_t((bits() & 0x83ff) | (form.group == 256 ? 3 : 7) << 10);
        std::memcpy(block + at, &half, 2);
      }
      if (form.kind == MXFP4) block[0] = uint8_t(121 + bits() % 4);
    }
    const int32_t each = function<int32_t (*)(int32_t)>(path, "rapid_block_bytes")(form.kind);
    w.panels.resize(size_t(panels) * (columns / form.group) * each);
    using Pack = void (*)(int32_t, const void*, const int64_t*, int32_t, int32_t, int32_t, void*);
    function<Pack>(path, "rapid_pack_blocks")(form.kind, w.raw.data(), nullptr, rows, columns, 2, w.panels.data());
    w.matrix.kind = form.kind;
  }
  if (name != "bf16") w.matrix.data = w.panels.data();
  if (!w.scale.empty()) w.matrix.scale = w.scale.data();
  w.matrix.bias = w.bias.data();
  return w;
}

const std::vector<std::string> WEIGHTS = {"bf16", "int8", "int4", "q4_0", "q4_1", "q5_0",
                                          "q5_1", "q8_0", "q4_k", "q5_k", "q6_k", "mxfp4"};

void products() {
  const int rows = 53, columns = 512, most = 9;
  const auto product = function<int (*)(const Matrix*, const void*, int32_t, int32_t, float*)>(path, "rapid_product");
  using Unpack = void (*)(int32_t, const void*, int32_t, int32_t, int32_t, void*);
  for (const std::string& name : WEIGHTS) {
    const Weight w = weight_of(name, rows, columns);
    std::vector<bf16> x = numbers(size_t(most) * columns);
    for (int t = 0; t < most; t++) {  // numbers that stand out, and not the same ones in all rows
      x[size_t(t) * columns + 70] = cut(40.0f);
      x[size_t(t) * columns + 131 + 32 * (t % 3)] = cut(-25.0f);
    }
    std::vector<float> all(size_t(most) * rows), some(all);
    product(&w.matrix, x.data(), most, 2, all.data());
    write("product " + name, all.data(), all.size());
    for (int count = 1; count < most; count++) {
      product(&w.matrix, x.data(), count, 1, some.data());
      require_same("product " + name, all.data(), some.data(), size_t(count) * rows * sizeof(float));
    }
    if (name == "bf16") continue;
    std::vector<bf16> unpacked(size_t(64) * columns);
    if (w.raw.empty())
      function<Unpack>(path, "rapid_unpack")(w.matrix.kind, w.panels.data(), 48, columns, 2, unpacked.data());
    else
      function<Unpack>(path, "rapid_unpack_blocks")(w.matrix.kind, w.panels.data(), 4, columns, 2, unpacked.data());
    write("unpacked " + name, unpacked);
    if (w.raw.empty()) continue;
    const int64_t ids[] = {52, 0, 7};
    std::vector<bf16> found(size_t(3) * columns);
    using Rows = void (*)(int32_t, const void*, const int64_t*, int64_t, int32_t, int32_t, void*);
    function<Rows>(path, "rapid_block_rows")(w.matrix.kind, w.raw.data(), ids, 3, columns, 1, found.data());
    write("rows " + name, found);
  }
}

size_t row_bytes(int kv, int D) { return kv == KV_INT8 ? size_t(D) + 4 : size_t(D) * 2; }

std::vector<uint8_t> cache_rows(int kv, int D, size_t count) {
  std::vector<uint8_t> out(count * row_bytes(kv, D));
  for (size_t i = 0; i < count; i++) {
    uint8_t* row = &out[i * row_bytes(kv, D)];
    if (kv == KV_INT8) {
      const float scale = 0.01f * (1 + std::fabs(uniform()));
      const std::vector<uint8_t> levels = bytes(size_t(D));
      for (int d = 0; d < D; d++) row[d] = levels[d] == 128 ? 0 : levels[d];
      std::memcpy(row + D, &scale, 4);
    } else {
      const std::vector<bf16> x = numbers(size_t(D));
      std::memcpy(row, x.data(), size_t(D) * 2);
    }
  }
  return out;
}

const char* const KV_NAMES[] = {"bf16", "int8"};

void attention() {
  const auto attend = function<int (*)(const Attention*)>(path, "rapid_attend");
  const auto select = function<int (*)(const Attention*, float, uint8_t*)>(path, "rapid_select_blocks");
  for (int kv : {KV_BF16, KV_INT8})
    for (int D : {32, 64, 96, 128, 160, 224, 256}) {
      const std::string name = std::string("attention ") + KV_NAMES[kv] + " " + std::to_string(D);
      const int past = 140, rows = 9, heads = 4, kv_heads = 2, capacity = past + rows;
      const std::vector<uint8_t> keys = cache_rows(kv, D, size_t(kv_heads) * capacity);
      const std::vector<uint8_t> values = cache_rows(kv, D, size_t(kv_heads) * capacity);
      const std::vector<bf16> q = numbers(size_t(rows) * heads * D);
      const int64_t apart = int64_t(capacity * row_bytes(kv, D));
      const LayerSegment segment{0, apart, apart, keys.data(), values.data()};
      std::vector<bf16> out(q.size()), one(size_t(heads) * D);
      Attention a{rows, heads, kv_heads, D, 2, kv, {0, 0, 1.0f / std::sqrt(float(D)), D == 64 ? 5.0f : 0.0f}, nullptr, past,
                  int64_t(heads) * D, D, 1, &segment, q.data(), out.data(), nullptr};
      if (D == 128) a.sight.window = 100;
      attend(&a);
      write(name, out);
      for (int t = 0; t < rows; t += 4) {
        Attention alone = a;
        alone.rows = 1, alone.past = past + t, alone.queries = &q[size_t(t) * heads * D], alone.out = one.data();
        attend(&alone);
        require_same(name, &out[size_t(t) * heads * D], one.data(), one.size() * 2);
      }
    }
  const int D = 64, rows = 128, past = 1920, capacity = rows + past;
  const std::vector<uint8_t> keys = cache_rows(KV_BF16, D, size_t(2) * capacity);
  const std::vector<bf16> q = numbers(size_t(rows) * 4 * D, 3.0f);
  const int64_t apart = int64_t(capacity * row_bytes(KV_BF16, D));
  const LayerSegment segment{0, apart, apart, keys.data(), keys.data()};
  const Attention a{rows, 4, 2, D, 1, KV_BF16, {0, 0, 0.125f, 0}, nullptr, past, 4 * D, D, 1, &segment, q.data(), nullptr, nullptr};
  std::vector<uint8_t> taken(size_t(2) * (rows / 64) * (capacity / 64));
  select(&a, 0.9f, taken.data());
  const std::vector<float> blocks(taken.begin(), taken.end());
  write("blocks", blocks.data(), blocks.size());
}

void between_products() {
  const std::vector<bf16> x = numbers(size_t(7) * 2 * 70, 6.0f);
  const auto gate = function<void (*)(const void*, int64_t, int64_t, int32_t, int32_t, int32_t, void*)>(path, "rapid_gate");
  for (int activation = SILU; activation <= CLIPPED_SWIGLU; activation++) {
    std::vector<bf16> out(size_t(7) * 70);
    gate(x.data(), 7, 70, activation, 1, 2, out.data());
    write("gate " + std::to_string(activation), out);
  }
  const std::vector<bf16> weight = numbers(96), more = numbers(size_t(5) * 96);
  std::vector<bf16> rows = numbers(size_t(5) * 96), out(rows);
  const Norm norm{RMS_NORM, 0, 1e-5f, 0, weight.data(), nullptr};
  using AddNorm = void (*)(void*, const void*, float, const Norm*, int64_t, int32_t, int32_t, void*);
  function<AddNorm>(path, "rapid_add_norm")(rows.data(), more.data(), 0.5f, &norm, 5, 96, 1, out.data());
  write("sum", rows);
  write("norm", out);
}

void distributions() {
  const int64_t n = 1003;
  const std::vector<float> z = floats(size_t(n), 8.0f), y = floats(size_t(n), 8.0f);
  std::vector<float> p(z), q(y), scratch(z);
  const auto softmax = function<void (*)(const float*, int64_t, double, float*)>(path, "rapid_softmax");
  softmax(z.data(), n, 1.3, p.data());
  softmax(y.data(), n, 1.3, q.data());
  write("softmax", p.data(), p.size());
  using PHat = int64_t (*)(const float*, const float*, int64_t, double, double, double, double, double, int32_t, float*, float*);
  const auto p_hat = function<PHat>(path, "rapid_p_hat");
  std::vector<float> out(z);
  for (double eta : {-1.0, 2.0}) {
    p_hat(z.data(), y.data(), n, 1.0, eta, 0.8, 0.7, 0.05, 0, out.data(), scratch.data());
    write("p_hat " + std::to_string(int(eta)), out.data(), out.size());
    const float best = float(p_hat(z.data(), y.data(), n, 1.0, eta, 0.8, 0.7, 0.05, 1, out.data(), scratch.data()));
    write("best " + std::to_string(int(eta)), &best, 1);
  }
  using Residual = double (*)(const float*, double, const float*, int64_t, float*);
  function<Residual>(path, "rapid_residual")(p.data(), 1.0, q.data(), n, out.data());
  write("residual", out.data(), out.size());
  function<int (*)(float*, int64_t, int64_t, double, double)>(path, "rapid_truncate")(p.data(), n, 40, 0.9, 0.01);
  write("truncated", p.data(), p.size());
  const float drawn = float(function<int64_t (*)(const float*, int64_t, double)>(path, "rapid_draw")(q.data(), n, 0.6));
  write("drawn", &drawn, 1);
}

// A model of two layers behind 70 tokens: five tokens at once, and each alone. Its attention is over latents if asked for.
void steps(const std::string& kind, int kv, bool latent) {
  const int E = 256, H = 4, KV = latent ? 4 : 2, D = 32, I = 256, V = 80, rank = 64, T = 5, past = 70, capacity = 96;
  const int qkv_rows = latent ? H * 2 * D + rank + D : (H + 2 * KV) * D;
  const std::string name = std::string(latent ? "latent " : "") + "step " + kind + " " + KV_NAMES[kv];
  std::vector<Weight> weights;
  weights.reserve(64);
  const auto made = [&](const std::string& of, int rows, int columns) {
    weights.push_back(weight_of(of, rows, columns));
    return weights.back().matrix;
  };
  const std::vector<bf16> ones = numbers(size_t(E)), embedding = numbers(size_t(V) * E);
  const Norm norm{RMS_NORM, 0, 1e-5f, 1.0f, ones.data(), nullptr}, none{};
  std::vector<Layer> layers(2);
  std::vector<Latent> latents(2);
  std::vector<std::vector<Matrix>> per_head(4);
  for (int i = 0; i < 2; i++) {
    Layer& layer = layers[i];
    layer.qkv = made(kind, qkv_rows, E);
    layer.out = made(kind == "q4_k" || kind == "q6_k" ? "q4_0" : kind, E, H * D);
    layer.gate_up = made(kind, 2 * I, E);
    layer.down = made(kind, E, I);
    layer.before_attention = layer.before_mlp = norm;
    layer.rope = {0, D / 2, 0, 0};
    layer.sight = {0, 0, 0.17f, 0};
    layer.activation = SILU, layer.gated = 1, layer.attention_residual = layer.mlp_residual = 0.5f;
    layer.kv_heads = latent ? 1 : KV, layer.head_dim = D, layer.slot = i, layer.scale = 1;
    if (!latent) continue;
    for (int h = 0; h < H; h++) {
      per_head[2 * i].push_back(made("bf16", rank, D));
      per_head[2 * i + 1].push_back(made("bf16", D, rank));
    }
    latents[i] = {rank, D, D, D, none, norm, Matrix{}, per_head[2 * i].data(), per_head[2 * i + 1].data()};
    layer.latent = &latents[i];
  }
  const Model model{2, E, H, I, V, D / 2, layers.data(), norm, made("bf16", V, E), embedding.data(), 1, 1, 0, BF16, nullptr};
  const size_t heads = latent ? 1 : size_t(KV);
  std::vector<uint8_t> keys[2], values[2];
  for (int i = 0; i < 2; i++) {
    keys[i] = cache_rows(kv, D, heads * capacity);
    values[i] = cache_rows(kv, latent ? rank : D, heads * capacity);
  }
  void* const key_rows[] = {keys[0].data(), keys[1].data()};
  void* const value_rows[] = {values[0].data(), values[1].data()};
  const Segment segment{0, capacity, key_rows, value_rows};
  const int64_t ids[T] = {3, 70, 11, 11, 42};
  const std::vector<float> cos = floats(size_t(T) * D / 2), sin = floats(size_t(T) * D / 2);
  const auto floats_of = function<int64_t (*)(const Model*, const Step*)>(path, "rapid_step_floats");
  const auto run = function<int (*)(const Model*, const Step*)>(path, "rapid_decode_step");
  const auto step = [&](int first, int rows, int threads, float* logits) {
    const Rows reader{rows, rows, past + first, ids + first, nullptr, &cos[size_t(first) * D / 2], &sin[size_t(first) * D / 2], nullptr,
                      1, &segment};
    Step asked{1, threads, 0, kv, &reader, logits, nullptr, nullptr, nullptr};
    std::vector<float> scratch(size_t(floats_of(&model, &asked)));
    asked.scratch = scratch.data();
    if (const int wrong = run(&model, &asked)) std::fprintf(stderr, "%s: %d\n", name.c_str(), wrong), differs = true;
  };
  std::vector<float> all(size_t(T) * V), one(V);
  step(0, T, 2, all.data());
  write(name, all.data(), all.size());
  for (int t = 0; t < T; t++) {
    step(t, 1, 1, one.data());
    require_same(name, &all[size_t(t) * V], one.data(), one.size() * sizeof(float));
  }
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 3) return 2;
  path = arguments[1];
  results = std::fopen(arguments[2], "wb");
  if (!results) return 2;
  const float wide = float(function<int (*)()>(path, "rapid_fast_path")());
  write("fast path", &wide, 1);
  products();
  attention();
  between_products();
  distributions();
  for (const char* kind : {"bf16", "int8", "int4", "q4_k", "q6_k", "q8_0"})
    for (int kv : {KV_BF16, KV_INT8}) steps(kind, kv, false);
  for (int kv : {KV_BF16, KV_INT8}) steps("bf16", kv, true);
  std::fclose(results);
  return differs ? 1 : 0;
}
