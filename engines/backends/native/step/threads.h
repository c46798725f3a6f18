// A fixed team of threads that runs one function at a time, and the bell that wakes sleepers.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "program.h"

namespace nemotrt {

constexpr int SPINS = 4000;  // tens of microseconds, before a waiting thread gives its core away

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Waits first awake, then asleep: on a busy machine a sleeper's core goes to the thread it waits for.
class Bell {
 public:
  // `is_due` reads sequentially consistent atomics that are written before ring().
  template <typename Due>
  void wait(Due is_due) {
    for (int spin = 0; spin < SPINS; spin++) {
      if (is_due()) return;
      pause();
    }
    std::unique_lock<std::mutex> lock(mutex_);
    sleepers_.fetch_add(1);
    wake_.wait(lock, is_due);
    sleepers_.fetch_sub(1);
  }

  void ring() {
    if (!sleepers_.load()) return;
    { std::lock_guard<std::mutex> lock(mutex_); }
    wake_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<int> sleepers_{0};
};

class Team {
 public:
  explicit Team(int size) {
    try {
      for (int i = 1; i < size; i++) threads_.emplace_back([this, i] { work(i); });
    } catch (...) {
      stop();
      throw;
    }
  }
  ~Team() { stop(); }

  // Runs job(thread) on every thread, the caller's being 0, and returns when all are through.
  void run(const std::function<void(int)>& job) {
    job_ = &job;
    running_.store((int)threads_.size());
    round_.fetch_add(1);
    bell_.ring();
    job(0);
    bell_.wait([this] { return running_.load() == 0; });
  }

 private:
  void work(int thread) {
    for (unsigned seen = 0;; seen++) {
      bell_.wait([&] { return round_.load() != seen; });
      if (!job_) return;
      (*job_)(thread);
      if (running_.fetch_sub(1) == 1) bell_.ring();
    }
  }

  void stop() {
    job_ = nullptr;
    round_.fetch_add(1);
    bell_.ring();
    for (std::thread& thread : threads_) thread.join();
  }

  Bell bell_;
  std::atomic<unsigned> round_{0};
  std::atomic<int> running_{0};
  const std::function<void(int)>* job_ = nullptr;
  std::vector<std::thread> threads_;
};

Team& team_of(void* engine);  // of what nemotrt_open() gave

}  // namespace nemotrt
