// Work shared with XLA's own threads, without ever waiting for a thread that has not started.
//
// XLA runs independent calls at once on the pool that the helpers come from. A call that waited
// for its helpers could wait for itself; so the caller takes tasks like any helper, and waits only
// for those that some thread has already begun.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <utility>

#include "xla/ffi/api/ffi.h"

namespace nnlab {

// Calls `run(i)` for every i in [0, tasks), each once, in any order and on any thread. Throws what
// a task has thrown, after the others: an exception that left a helper would end the process.
template <class Run>
void share(xla::ffi::ThreadPool& pool, int64_t tasks, const Run& run) {
  struct Progress {
    std::atomic<int64_t> next{0};
    int64_t done = 0;
    std::exception_ptr thrown;
    std::mutex mutex;
    std::condition_variable finished;
  };
  const auto progress = std::make_shared<Progress>();
  // A helper that starts late finds no task left and does not touch `run`, which is gone by then.
  const auto take = [progress, tasks, run = &run] {
    int64_t mine = 0;
    std::exception_ptr thrown;
    for (int64_t i; (i = progress->next.fetch_add(1)) < tasks; ++mine) {
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
  const int64_t helpers = std::min(pool.num_threads(), tasks) - 1;
  try {
    for (int64_t i = 0; i < helpers; ++i) pool.Schedule(std::decay_t<decltype(take)>(take));
  } catch (...) {  // no memory for another helper: those that there are may not be left behind
  }
  take();
  std::unique_lock<std::mutex> lock(progress->mutex);
  progress->finished.wait(lock, [&] { return progress->done == tasks; });
  if (progress->thrown) std::rethrow_exception(progress->thrown);
}

}  // namespace nnlab
