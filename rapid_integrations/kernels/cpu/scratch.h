// Space for what is computed on the way.

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

namespace {

constexpr size_t LINE = 16;  // floats of a cache line: what threads write lies in lines of their own

inline size_t whole_lines(size_t floats) { return (floats + LINE - 1) / LINE * LINE; }

inline float* align(float* p) {
  const uintptr_t bytes = LINE * sizeof(float);
  return reinterpret_cast<float*>((reinterpret_cast<uintptr_t>(p) + bytes - 1) / bytes * bytes);
}

// Floats that begin on a line; null if there is no memory. Nothing may be thrown across threads or into Python.
class Floats {
 public:
  explicit Floats(size_t count) : memory_(new (std::nothrow) float[count + LINE]) {}
  float* get() const { return memory_ ? align(memory_.get()) : nullptr; }

 private:
  std::unique_ptr<float[]> memory_;
};

}  // namespace
