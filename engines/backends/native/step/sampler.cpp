// The sampler's entry points: all sequences of a step in one call, on the engine's threads or its own.

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <exception>
#include <memory>
#include <vector>

#include "program.h"
#include "sampling.h"
#include "threads.h"

namespace nemotrt {
namespace {

// One thread's working memory.
struct Memory {
  explicit Memory(int64_t vocab_size)
      : blocks(round_up(vocab_size, SAMPLING_BLOCK) / SAMPLING_BLOCK), weights(blocks * SAMPLING_BLOCK),
        changed(blocks * SAMPLING_BLOCK), places(blocks), allowed(blocks * (SAMPLING_BLOCK / 8)),
        tail(SAMPLING_BLOCK), most(blocks), raw_most(blocks), sums(blocks), copy(blocks), order(blocks * SAMPLING_BLOCK) {}

  Bench bench() {
    return {weights.data(), changed.data(), places.data(), allowed.data(), tail.data(), most.data(),
            raw_most.data(), sums.data(), copy.data(), order.data()};
  }

  int64_t blocks;
  std::vector<float> weights;
  std::vector<float> changed;
  std::vector<const float*> places;
  std::vector<uint8_t> allowed;
  std::vector<float> tail;
  std::vector<double> most, raw_most, sums, copy;
  std::vector<int32_t> order;
};

class Sampler {
 public:
  Sampler(void* engine, int64_t vocab_size, int threads, Kernels kernels)
      : vocab_size_(vocab_size), kernels_(kernels), own_(engine ? nullptr : new Team(threads)),
        team_(engine ? &team_of(engine) : own_.get()) {
    for (int i = 0; i < threads; i++) memory_.emplace_back(vocab_size);
  }

  const char* fault_of(const DrawBatch& batch) const {
    if (batch.vocab_size != vocab_size_) return "another vocabulary";
    if (batch.num_draws < 1 || batch.num_rows < 1) return "an empty batch";
    if (batch.stride && batch.stride < vocab_size_) return "rows that overlap";
    for (int i = 0; i < batch.num_draws; i++) {
      const Draw& draw = *batch.draws[i];
      if (batch.rows[i] < 0 || batch.rows[i] >= batch.num_rows) return "a row is out of range";
      if (draw.forced < -1 || draw.forced >= vocab_size_) return "a forced token is out of range";
      for (int j = 0; j < draw.num_biased; j++)
        if (draw.biased[j] < 0 || draw.biased[j] >= vocab_size_) return "a biased token is out of range";
    }
    return nullptr;
  }

  void run(const DrawBatch& batch) {
    std::atomic<int> next{0};
    auto work = [&](int thread) {
      Bench bench = memory_[thread].bench();
      for (int i; (i = next.fetch_add(1)) < batch.num_draws;)
        kernels_.sample(*batch.draws[i], batch.logits + batch.rows[i] * batch.stride, vocab_size_, bench);
    };
    if (batch.num_draws == 1) work(0);  // no thread has to wake
    else team_->run(work);
  }

 private:
  int64_t vocab_size_;
  Kernels kernels_;
  std::unique_ptr<Team> own_;
  Team* team_;
  std::vector<Memory> memory_;
};

}  // namespace
}  // namespace nemotrt

using namespace nemotrt;

#pragma GCC visibility push(default)
extern "C" {

// Returns a sampler, or nullptr with the reason in `error`. With an engine, `threads` is its number and
// the sampler must not run beside a step, nor after the engine's end.
void* nemotrt_sampler_open(void* engine, int32_t vocab_size, int32_t threads, int32_t isa, char* error,
                           size_t size) {
  Kernels kernels = choose(isa);
  if (!kernels.run || vocab_size < 1 || threads < 1 || threads > 1024) {
    snprintf(error, size, "no such sampler: %d tokens, %d threads, instruction set %d", vocab_size, threads, isa);
    return nullptr;
  }
  try {
    return new Sampler(engine, vocab_size, threads, kernels);
  } catch (const std::exception& fault) {
    snprintf(error, size, "%s", fault.what());
    return nullptr;
  }
}

// Returns 0, or 1 if the batch is refused: nothing has changed.
int nemotrt_sample(void* sampler, const DrawBatch* batch, char* error, size_t size) {
  const char* fault = static_cast<Sampler*>(sampler)->fault_of(*batch);
  if (fault) {
    snprintf(error, size, "%s", fault);
    return 1;
  }
  static_cast<Sampler*>(sampler)->run(*batch);
  return 0;
}

void nemotrt_sampler_close(void* sampler) { delete static_cast<Sampler*>(sampler); }
}
#pragma GCC visibility pop
