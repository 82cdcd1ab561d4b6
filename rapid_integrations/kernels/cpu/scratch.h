// Space for what is computed on the way.

#pragma once

#include <cstdint>
#include <new>
#include <vector>

namespace {

inline float* align(float* p) { return (float*)((uintptr_t(p) + 63) / 64 * 64); }

// Nothing may be thrown across threads or into Python.
inline bool grow(std::vector<float>& v, size_t size) {
  try {
    if (v.size() < size) v.resize(size);
    return true;
  } catch (const std::bad_alloc&) {
    return false;
  }
}

}  // namespace
