// Work shared with XLA's own threads, without ever waiting for a thread that has not started.
//
// XLA runs independent calls at once on the pool that the helpers come from. A call that waited
// for its helpers could wait for itself; so the caller takes tasks like any helper, and waits only
// for those that some thread has already begun.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <utility>

#if defined(__linux__)
#include <sched.h>
#endif

#include "xla/ffi/api/ffi.h"

namespace nnlab {

#if defined(__linux__)
inline int processor() { return sched_getcpu(); }

// Takes this thread off a processor, if it may run on others.
inline void leave(int processor) {
  cpu_set_t allowed, others;
  if (sched_getaffinity(0, sizeof allowed, &allowed)) return;
  others = allowed;
  CPU_CLR(processor, &others);
  if (CPU_COUNT(&others) == 0 || sched_setaffinity(0, sizeof others, &others)) return;
  sched_setaffinity(0, sizeof allowed, &allowed);  // it may return, and has been moved
}

inline void let_others_run() { sched_yield(); }
#else
inline int processor() { return -1; }
inline void leave(int) {}
inline void let_others_run() {}
#endif

// Calls `run(i)` for every i in [0, tasks), each once, in any order and on any thread. Throws what
// a task has thrown, after the others: an exception that left a helper would end the process.
//
// Linux may wake a helper on the caller's own processor, where it has run before, although another
// is free or does what matters less, and leaves it there for milliseconds: longer than a call lasts.
// So the caller lets others run until a helper has started, and a helper leaves that processor.
template <class Run>
void share(xla::ffi::ThreadPool& pool, int64_t tasks, const Run& run) {
  struct Progress {
    std::atomic<int64_t> next{0};
    std::atomic<bool> helped{false};
    int64_t done = 0;
    std::exception_ptr thrown;
    std::mutex mutex;
    std::condition_variable finished;
  };
  const auto progress = std::make_shared<Progress>();
  // A helper that starts late finds no task left and does not touch `run`, which is gone by then.
  const auto take = [progress, tasks, run = &run](const auto& before_each) {
    int64_t mine = 0;
    std::exception_ptr thrown;
    for (int64_t i; before_each(), (i = progress->next.fetch_add(1)) < tasks; ++mine) {
      try {
        (*run)(i);
      } catch (...) {
        thrown = std::current_exception();
      }
    }
    if (mine == 0) return;
    const std::lock_guard<std::mutex> lock(progress->mutex);
    if (thrown) progress->thrown = thrown;
    progress->done += mine;
    if (progress->done == tasks) progress->finished.notify_all();
  };
  const auto help = [progress, tasks, take, caller = processor()] {
    progress->helped = true;
    if (caller >= 0 && progress->next < tasks && processor() == caller) leave(caller);
    take([] {});
  };
  const int64_t helpers = std::min(pool.num_threads(), tasks) - 1;
  try {
    for (int64_t i = 0; i < helpers; ++i) pool.Schedule(std::decay_t<decltype(help)>(help));
  } catch (...) {  // no memory for another helper: those that there are may not be left behind
  }
  take([&] {
    if (helpers > 0 && !progress->helped) let_others_run();
  });
  std::unique_lock<std::mutex> lock(progress->mutex);
  progress->finished.wait(lock, [&] { return progress->done == tasks; });
  if (progress->thrown) std::rethrow_exception(progress->thrown);
}

}  // namespace nnlab
