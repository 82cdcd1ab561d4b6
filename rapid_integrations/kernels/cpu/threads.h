// Threads that the kernels share, and what they do with them.

#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <thread>

namespace {

inline void relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

constexpr int SPINS = 2000;  // some tens of microseconds

// Spins while the others need some microseconds, and then lets other processes run: to sleep costs more than a step's parts
// take, and beside a busy process a thread that only spins waits for one that is not scheduled.
template <class Condition>
inline void spin_until(const Condition& reached) {
  for (int spins = 0; !reached(); spins++) {
    if (spins < SPINS)
      relax();
    else
      std::this_thread::yield();
  }
}

}  // namespace

// The threads that run one call of a kernel.
class Team {
 public:
  explicit Team(int threads) : threads(threads), running_(threads - 1) {}

  const int threads;

  // Waits until every thread of the team is here.
  void barrier() {
    const int phase = phase_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == threads) {
      arrived_.store(0, std::memory_order_relaxed);
      phase_.store(phase + 1, std::memory_order_release);
      return;
    }
    spin_until([&] { return phase_.load(std::memory_order_acquire) != phase; });
  }

  void finished() { running_.fetch_sub(1, std::memory_order_release); }
  void join() {
    spin_until([&] { return running_.load(std::memory_order_acquire) == 0; });
  }

 private:
  std::atomic<int> arrived_{0}, phase_{0}, running_;
};

using Work = void (*)(void* context, int thread, Team& team);

// Calls work(context, thread, team) in as many threads as asked for, the calling one among them, and returns when all have
// returned. There are fewer where other calls have the threads at the same time, or the system gives no more.
void run_in_team(int threads, Work work, void* context);

namespace {

// Calls f(thread, team) in several threads.
template <class F>
inline void in_parallel(int threads, F&& f) {
  run_in_team(threads, [](void* context, int thread, Team& team) { (*static_cast<F*>(context))(thread, team); }, &f);
}

template <class N>
struct Share {  // of `count` things, in whole blocks, for one of the threads
  N first, last;
};

template <class N>
inline Share<N> share(N count, N block, int thread, int threads) {
  const int64_t blocks = (count + block - 1) / block;
  const N first = N(blocks * thread / threads), last = N(blocks * (thread + 1) / threads);
  return {std::min(count, first * block), std::min(count, last * block)};
}

// Calls f(i) for i from 0 to count - 1, equal shares of them in each thread.
template <class F>
inline void for_each(int threads, int64_t count, const F& f) {
  in_parallel(int(std::min<int64_t>(threads, count)), [&](int thread, Team& team) {
    const Share<int64_t> mine = share<int64_t>(count, 1, thread, team.threads);
    for (int64_t i = mine.first; i < mine.last; i++) f(i);
  });
}

}  // namespace
