// A pool of threads for the whole process.
//
// OpenMP has one for each thread that calls: with 64 workers on 16 cores a thousand threads sleep. It also would be the
// second OpenMP of a process, beside PyTorch's, and macOS's compiler comes without. Here callers share as many threads as
// the processor runs at a time; who finds none idle computes alone, in the same order of operations.

#include "threads.h"

#include <condition_variable>
#include <memory>
#include <mutex>
#include <new>
#include <system_error>
#include <vector>

#ifndef _WIN32
#include <pthread.h>
#include <unistd.h>
#endif

namespace {

void name_this_thread() {  // as `top` and debuggers show it
#if defined(__linux__)
  pthread_setname_np(pthread_self(), "rapid-kernels");
#elif defined(__APPLE__)
  pthread_setname_np("rapid-kernels");
#endif
}

class Worker {
 public:
  Worker() : thread_([this] { serve(); }) { thread_.detach(); }

  void start(Work work, void* context, int index, Team& team) {
    work_ = work, context_ = context, index_ = index;
    team_.store(&team);
    if (!asleep_.load()) return;
    std::lock_guard lock(mutex_);
    wake_.notify_one();
  }

 private:
  [[noreturn]] void serve() {
    name_this_thread();
    for (;;) {
      Team* const team = next();
      work_(context_, index_, *team);
      team_.store(nullptr);
      team->finished();  // nothing of it may be touched any more
    }
  }

  Team* next() {
    for (int spins = 0; spins < SPINS; spins++) {  // the next step of a model comes soon
      if (Team* const team = team_.load()) return team;
      relax();
    }
    std::unique_lock lock(mutex_);
    asleep_.store(true);  // before team_ is looked at again, as `start` looks at it behind team_: one sees the other
    wake_.wait(lock, [this] { return team_.load() != nullptr; });
    asleep_.store(false);
    return team_.load();
  }

  Work work_ = nullptr;
  void* context_ = nullptr;
  int index_ = 0;
  std::atomic<Team*> team_{nullptr};
  std::atomic<bool> asleep_{false};
  std::mutex mutex_;
  std::condition_variable wake_;
  std::thread thread_;  // last: it uses the others
};

class Pool {
 public:
  explicit Pool(long process) : process(process) {}

  const long process;

  // Returns at most `count` workers that have nothing to do.
  std::vector<Worker*> take(size_t count) {
    std::lock_guard lock(mutex_);
    const size_t most = std::max<size_t>(count, std::max(1u, std::thread::hardware_concurrency()) - 1);
    std::vector<Worker*> taken;
    taken.reserve(count);
    while (taken.size() < count) {
      if (idle_.empty() && !(all_.size() < most && add())) break;
      taken.push_back(idle_.back());
      idle_.pop_back();
    }
    return taken;
  }

  void give_back(const std::vector<Worker*>& workers) {
    std::lock_guard lock(mutex_);
    idle_.insert(idle_.end(), workers.rbegin(), workers.rend());  // the same ones serve the same thread's next step
  }

 private:
  bool add() try {
    idle_.reserve(all_.size() + 1);
    all_.reserve(all_.size() + 1);  // a thread that has begun is not lost to a lack of memory
    all_.push_back(std::make_unique<Worker>());
    idle_.push_back(all_.back().get());
    return true;
  } catch (const std::system_error&) {  // the system gives no more threads
    return false;
  }

  std::mutex mutex_;
  std::vector<std::unique_ptr<Worker>> all_;
  std::vector<Worker*> idle_;
};

std::atomic<Pool*> current{nullptr};

// A forked child has none of its parent's threads, and perhaps a lock that nobody will open: it begins with a new pool.
// Pools are never destroyed, since threads wait in them until the process ends.
Pool& pool() {
#ifdef _WIN32
  const long process = 0;
#else
  const long process = getpid();
#endif
  Pool* found = current.load();
  while (!found || found->process != process) {
    auto made = std::make_unique<Pool>(process);
    if (current.compare_exchange_strong(found, made.get())) found = made.release();
  }
  return *found;
}

// PyTorch's OpenMP, if it is GNU's. Its threads spin for a millisecond when they have nothing to do, and ours for some tens
// of microseconds. So two pools that take turns on the same cores wait for each other each time: a prompt of 16 tokens
// took twice as long as in one thread.
struct OpenMP {
  void (*parallel)(void (*)(void*), void*, unsigned, unsigned) = nullptr;
  int (*thread)() = nullptr, (*threads)() = nullptr, (*most)() = nullptr, (*inside)() = nullptr, (*varies)() = nullptr;
  long process = 0;  // its threads do not exist in a forked child, which would wait for them
};

OpenMP openmp;
thread_local bool on_torchs_threads = false;

struct Call {
  Work work;
  void* context;
  Team& team;
};

void in_openmp(void* data) {
  Call& call = *static_cast<Call*>(data);
  const int thread = openmp.thread();
  if (openmp.threads() >= call.team.threads) {
    if (thread < call.team.threads) call.work(call.context, thread, call.team);
  } else if (thread == 0) {  // the system gives no more threads
    Team alone(1);
    call.work(call.context, 0, alone);
  }
}

// Runs a call in the threads of PyTorch's OpenMP, all of which are woken, as a smaller team would end the others.
bool run_on_torchs_threads(int threads, Work work, void* context) {
  if (!on_torchs_threads || !openmp.parallel || openmp.inside() || openmp.varies()) return false;
#ifndef _WIN32
  if (openmp.process != getpid()) return false;
#endif
  const int most = openmp.most();
  if (most < 2) return false;
  Team team(std::min(threads, most));
  Call call{work, context, team};
  openmp.parallel(in_openmp, &call, unsigned(most), 0);
  return true;
}

}  // namespace

extern "C" {

// Tells how to compute in the threads of PyTorch's OpenMP: GNU's GOMP_parallel, omp_get_thread_num, omp_get_num_threads,
// omp_get_max_threads, omp_in_parallel and omp_get_dynamic. Python calls it once, before any kernel.
void rapid_use_openmp(void* const* functions) {
  OpenMP found;
  found.parallel = reinterpret_cast<decltype(found.parallel)>(functions[0]);
  int (**const each[])() = {&found.thread, &found.threads, &found.most, &found.inside, &found.varies};
  for (int i = 0; i < 5; i++) *each[i] = reinterpret_cast<int (*)()>(functions[i + 1]);
#ifndef _WIN32
  found.process = getpid();
#endif
  openmp = found;
}

// Whether this thread's calls run there from now on, because they take turns with PyTorch's own.
void rapid_take_torchs_threads(int32_t taken) { on_torchs_threads = taken != 0; }

}  // extern "C"

void run_in_team(int threads, Work work, void* context) {
  if (threads > 1 && run_on_torchs_threads(threads, work, context)) return;
  std::vector<Worker*> workers;
  try {
    if (threads > 1) workers = pool().take(size_t(threads) - 1);
  } catch (const std::bad_alloc&) {  // nothing may be thrown into Python
  }
  Team team(int(workers.size()) + 1);
  for (size_t i = 0; i < workers.size(); i++) workers[i]->start(work, context, int(i) + 1, team);
  work(context, 0, team);
  if (workers.empty()) return;
  team.join();
  pool().give_back(workers);
}
