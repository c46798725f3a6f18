// The library's entry points: open a program, run a step, close.

#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <numeric>

#include "adapters.h"
#include "program.h"
#include "threads.h"

namespace nemotrt {
namespace {

// Zeroed memory on a cache line; large blocks become resident as they are touched.
class Block {
 public:
  explicit Block(int64_t bytes) : memory_(std::calloc(bytes + LINE, 1)) {
    if (!memory_) throw std::bad_alloc();
  }
  ~Block() { std::free(memory_); }
  Block(const Block&) = delete;

  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(round_up(reinterpret_cast<int64_t>(memory_), LINE));
  }

 private:
  static constexpr int LINE = 64;
  void* memory_;
};

// Anonymous memory, in huge pages where the system has them.
class Pages {
 public:
  explicit Pages(int64_t bytes) : bytes_(bytes) {
    memory_ = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory_ == MAP_FAILED) throw std::bad_alloc();
#if defined(MADV_HUGEPAGE)
    madvise(memory_, bytes, MADV_HUGEPAGE);
#endif
    std::memset(memory_, 1, bytes);  // pages that nobody wrote share one page of zeros
  }
  ~Pages() { munmap(memory_, bytes_); }
  Pages(const Pages&) = delete;

  float* floats() const { return static_cast<float*>(memory_); }

 private:
  void* memory_;
  int64_t bytes_;
};

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

class Engine {
 public:
  Engine(const ProgramSpec& spec, Kernels kernels)
      : spec_(spec), kernels_(kernels), ops_(spec.ops, spec.ops + spec.num_ops),
        states_(spec.states, spec.states + spec.num_states),
        phases_(spec.num_ops * PHASES), ends_(spec.num_ops * PHASES), adapters_(spec), team_(spec.num_threads) {
    for (int i = 0; i < spec.num_tensors; i++) {
      const TensorSpec& t = spec.tensors[i];
      tensors_.push_back({t.kind, t.rows, t.columns, spec.weights + t.offset});
    }
    for (int i = 0; i < spec.num_buffers; i++) add_buffer(spec.buffers[i], i == spec.logits);
    for (const Op& op : ops_) add_notes(op);
    drafted_.assign(spec.max_slots, 0);
    int64_t scratch = scratch_elements();
    machine_ = {ops_.data(), buffers_.data(), tensors_.data(), states_.data(),
                allocate<float>(scratch * spec.num_threads), scratch, allocate<float>(parts_elements()),
                notes_.data(), spec.num_ops, spec.max_seq_len, spec.max_draft, spec.num_threads, kernels.matrix,
                adapters_.view()};
    for (StateSpec& state : states_) state.name = nullptr;
    spec_.ops = nullptr;  // the caller's arrays are not kept, but for what adapters' weights are in
  }

  const char* fault_of(const Batch& batch, char* text, size_t size) {
    std::vector<bool> used(spec_.max_slots);
    int64_t total = 0;
    const char* fault = nullptr;
    if (batch.num_sequences < 1 || batch.num_tokens < 1 || !batch.sequences || !batch.tokens)
      fault = "an empty batch";
    for (int i = 0; !fault && i < batch.num_sequences; i++) {
      const Sequence& s = batch.sequences[i];
      if (s.slot < 0 || s.slot >= spec_.max_slots || used[s.slot]) {
        fault = "a slot is out of range or given twice";
        break;
      }
      used[s.slot] = true;
      if (s.past < 0 || s.count < 1 || s.count > spec_.max_seq_len || s.past > spec_.max_seq_len - s.count)
        fault = "a sequence exceeds max_seq_len";
      if (s.num_logits < 0 || s.num_logits > s.count) fault = "more logits than tokens";
      if (s.num_logits && !batch.logits) fault = "no room for the logits";
      if (s.is_draft && s.count > spec_.max_draft) fault = "a draft is too long";
      if (s.adapter < 0 || s.adapter > spec_.num_adapters) fault = "there is no such adapter";
      total += s.count;
    }
    if (!fault && (total != batch.num_tokens || total > spec_.max_tokens)) fault = "too many tokens";
    for (int i = 0; !fault && i < batch.num_tokens; i++)
      if (batch.tokens[i] < 0 || batch.tokens[i] >= spec_.vocab_size) fault = "a token is out of range";
    if (fault) snprintf(text, size, "%s", fault);
    return fault;
  }

  const char* fault_of(const Sequence* accepted, int32_t count, char* text, size_t size) {
    std::vector<bool> used(spec_.max_slots);
    const char* fault = count < 1 || !accepted ? "nothing is accepted" : nullptr;
    for (int i = 0; !fault && i < count; i++) {
      const Sequence& s = accepted[i];
      if (s.slot < 0 || s.slot >= spec_.max_slots || used[s.slot]) fault = "a slot is out of range or given twice";
      else if (s.count < 1 || s.count > drafted_[s.slot]) fault = "more is accepted than was drafted";
      else used[s.slot] = true;
    }
    if (fault) snprintf(text, size, "%s", fault);
    return fault;
  }

  Team& team() { return team_; }

  void accept(const Sequence* accepted, int32_t count) {
    for (int i = 0; i < count; i++) drafted_[accepted[i].slot] = 0;
    Step step = {};
    step.sequences = accepted;
    step.num_sequences = count;
    std::fill(phases_.begin(), phases_.end(), Phase{});
    Shared shared = {phases_.data(), &bell_, ends_.data()};
    team_.run([&](int thread) { kernels_.accept(machine_, step, shared, thread); });
  }

  void step(const Batch& batch) {
    std::vector<int32_t> starts, owners, logits_rows;
    int32_t longest = 0;
    bool has_adapters = false;
    for (int i = 0; i < batch.num_sequences; i++) {
      const Sequence& s = batch.sequences[i];
      drafted_[s.slot] = s.is_draft ? s.count : 0;
      starts.push_back((int32_t)owners.size());
      owners.insert(owners.end(), s.count, i);
      longest = std::max(longest, s.past + s.count);
      has_adapters |= s.adapter > 0;
      for (int row = s.num_logits; row > 0; row--) logits_rows.push_back((int32_t)owners.size() - row);
    }
    buffers_[spec_.logits].rows = batch.logits;
    Step step = {batch.sequences, starts.data(), owners.data(), logits_rows.data(), batch.tokens,
                 batch.num_sequences, batch.num_tokens, (int32_t)logits_rows.size(), longest,
                 has_adapters};
    std::fill(phases_.begin(), phases_.end(), Phase{});
    std::fill(ends_.begin(), ends_.end(), 0.);
    Shared shared = {phases_.data(), &bell_, ends_.data()};
    double latest = now();
    team_.run([&](int thread) { kernels_.run(machine_, step, shared, thread); });
    for (size_t i = 0; batch.seconds && i < ends_.size(); i++) {
      if (ends_[i] <= latest) continue;  // it had no jobs, or ended before one that ran beside it
      batch.seconds[i / PHASES] += ends_[i] - latest;
      latest = ends_[i];
    }
  }

 private:
  template <typename T>
  T* allocate(int64_t count) {
    blocks_.push_back(std::make_unique<Block>(count * (int64_t)sizeof(T)));
    return blocks_.back()->as<T>();
  }

  void add_buffer(const BufferSpec& spec, bool is_logits) {
    int64_t stride = round_up(spec.width, spec.format == OPERAND_INT8 ? CELL : PANEL);
    int64_t rows = spec_.max_tokens;  // each token may bring logits
    Buffer buffer = {spec.format, (int32_t)stride, nullptr, nullptr, nullptr, nullptr};
    if (spec.format == OPERAND_INT16) {
      buffer.codes = allocate<int16_t>(rows * stride);
      buffer.scales = allocate<float>(rows * blocks_of(stride));
    } else if (spec.format == OPERAND_INT8) {
      buffer.cells = allocate<int32_t>(rows * stride / CELL * CELL_WORDS);
    } else if (!is_logits) {
      buffer.rows = allocate<float>(rows * stride);
    }
    buffers_.push_back(buffer);
  }

  // Memory for what an operation notes of drafts, resident as it is touched.
  void add_notes(const Op& op) {
    int64_t width = 0;
    if (op.kind == CONV) width = op.target.width;
    if (op.kind == SCAN)  // ScanNote
      width = (int64_t)op.sizes[0] * (op.sizes[1] + 2) + (int64_t)op.sizes[2] * op.sizes[3];
    int64_t count = width * spec_.max_draft * spec_.max_slots;
    notes_.push_back({count ? allocate<float>(count) : nullptr, width});
  }

  // A thread's own memory: a row of any operand, rows of a state, or what attention and matrix units
  // hold in their own form.
  int64_t scratch_elements() const {
    int64_t most = CELL;
    for (const Op& op : ops_) {
      for (const View& view : op.sources) most = std::max<int64_t>(most, round_up(view.width, CELL));
      if (op.kind == SCAN) most = std::max<int64_t>(most, 4 * (int64_t)op.sizes[2]);
      if (op.kind == ATTENTION) most = std::max(most, attention_elements(op.sizes[2]));
      if (op.kind == LINEAR && kernels_.matrix)
        most = std::max(most, matrix_elements(spec_.max_tokens, tensors_[op.tensors[0]].columns));
      if (op.kind == ROUTE) most = std::max<int64_t>(most, 2 * op.sources[0].width + 2 * op.sizes[1]);
      if (op.kind == EXPERTS) {
        const Tensor& weight = tensors_[op.tensors[0]];
        most = std::max(most, expert_elements(op.sizes[0], op.sizes[1], weight.columns, weight.rows, spec_.max_tokens));
      }
    }
    return round_up(most, CELL);
  }

  // Softmaxes of spans of keys, for as many tokens and KV heads as have their keys split.
  int64_t parts_elements() const {
    int64_t most = 0, spans = (spec_.max_seq_len + SPAN - 1) / SPAN;
    for (const Op& op : ops_) {
      if (op.kind != ATTENTION || spans == 1) continue;
      int64_t pairs = std::min<int64_t>(spec_.num_threads * SPLIT_BELOW - 1,
                                        (int64_t)spec_.max_tokens * op.sizes[1]);
      most = std::max(most, pairs * spans * (op.sizes[0] / op.sizes[1]) * part_elements(op.sizes[2]));
    }
    return most;
  }

  ProgramSpec spec_;
  Kernels kernels_;
  std::vector<Op> ops_;
  std::vector<StateSpec> states_;
  std::vector<Tensor> tensors_;
  std::vector<Buffer> buffers_;
  std::vector<std::unique_ptr<Block>> blocks_;
  std::vector<Notes> notes_;       // of each operation
  std::vector<int32_t> drafted_;   // tokens of each slot's draft that nobody has accepted yet
  std::vector<Phase> phases_;
  std::vector<double> ends_;
  AdapterTable adapters_;
  Machine machine_;
  Bell bell_;
  Team team_;
};

}  // namespace

void sleep_until(Bell& bell, const Phase& phase, int32_t chunks) {
  bell.wait([&] { return __atomic_load_n(&phase.done, __ATOMIC_SEQ_CST) >= chunks; });
}

void announce(Bell& bell) { bell.ring(); }

Team& team_of(void* engine) { return static_cast<Engine*>(engine)->team(); }

}  // namespace nemotrt

using namespace nemotrt;

#pragma GCC visibility push(default)
extern "C" {

const char* nemotrt_source() { return NEMOTRT_SOURCE; }

// The names of kinds, tensor kinds, formats, state formats, sets of rows: each in order, a line each.
const char* nemotrt_names() {
#define NEMOTRT_WORD(number, name, ...) name " "
  return NEMOTRT_KINDS(NEMOTRT_WORD) "\n" NEMOTRT_TENSOR_KINDS(NEMOTRT_WORD) "\n" NEMOTRT_FORMATS(NEMOTRT_WORD)
      "\n" NEMOTRT_STATE_FORMATS(NEMOTRT_WORD) "\n" NEMOTRT_ROW_SETS(NEMOTRT_WORD);
}

// Returns 0, or 1 with what is wrong with a program in `error`, before there is memory for its states.
int nemotrt_check(const ProgramSpec* program, char* error, size_t size) {
  try {
    return fault_of(*program, error, size) != nullptr;
  } catch (const std::exception& fault) {
    snprintf(error, size, "%s", fault.what());
    return 1;
  }
}

// Returns an engine, or nullptr with the reason in `error`.
void* nemotrt_open(const ProgramSpec* program, char* error, size_t size) {
  if (nemotrt_check(program, error, size)) return nullptr;
  for (int i = 0; i < program->num_states; i++)
    if (!program->states[i].data) {
      snprintf(error, size, "state %d has no memory", i);
      return nullptr;
    }
  Kernels kernels = choose(program->isa);
  if (!kernels.run) {
    snprintf(error, size, "this CPU lacks instruction set %d", program->isa);
    return nullptr;
  }
  try {
    return new Engine(*program, kernels);
  } catch (const std::exception& fault) {
    snprintf(error, size, "%s", fault.what());
    return nullptr;
  }
}

// Returns 0, 1 if the batch is refused (no state has changed), 2 if memory ran out before the start.
int nemotrt_step(void* engine, const Batch* batch, char* error, size_t size) {
  try {
    if (static_cast<Engine*>(engine)->fault_of(*batch, error, size)) return 1;
    static_cast<Engine*>(engine)->step(*batch);
    return 0;
  } catch (const std::exception& fault) {
    snprintf(error, size, "%s", fault.what());
    return 2;
  }
}

// Returns 0, or 1 if what is accepted (slot and count of each) was not drafted: no state has changed.
int nemotrt_accept(void* engine, const Sequence* accepted, int32_t count, char* error, size_t size) {
  try {
    if (static_cast<Engine*>(engine)->fault_of(accepted, count, error, size)) return 1;
    static_cast<Engine*>(engine)->accept(accepted, count);
    return 0;
  } catch (const std::exception& fault) {
    snprintf(error, size, "%s", fault.what());
    return 1;
  }
}

// Returns 0, or 1 if the threads can't be kept on these CPUs, one for each thread but the caller's.
int nemotrt_pin(void* engine, const int32_t* cpus, int32_t count) {
  return !static_cast<Engine*>(engine)->team().pin(cpus, count);
}

// Returns bytes or operations a second of all threads together, at their best; 0 if it can't measure.
// Memory is shared, so its rate is that of a pass of all; arithmetic is each thread's own.
double nemotrt_probe(int32_t what, int64_t bytes, int32_t threads, int32_t isa) {
  constexpr int64_t STEP = 512;
  constexpr double SECONDS = 0.3;
  Kernels kernels = choose(isa);
  int64_t part = bytes / STEP / std::max(threads, 1) * STEP;
  if (!kernels.run || what < 0 || what >= NUM_PROBES || threads < 1 || threads > 1024 || part < STEP) return 0;
  try {
    Pages memory(part * threads);
    Team team(threads);
    std::vector<double> work(threads), rates(threads);
    double best = 0, end = now() + SECONDS;
    for (int pass = 0; pass < 3 || now() < end; pass++) {
      double start = now(), total = 0;
      team.run([&](int thread) {
        double began = now();
        work[thread] = kernels.probe(what, memory.floats() + thread * part / 4, part / 4);
        rates[thread] = std::max(rates[thread], work[thread] / (now() - began));
      });
      double seconds = now() - start;
      for (double done : work) total += done;
      if (pass) best = std::max(best, total / seconds);  // the first one touches the pages
    }
    if (what == PROBE_READ || what == PROBE_UPDATE) return best;
    return std::accumulate(rates.begin(), rates.end(), 0.);
  } catch (const std::exception&) {
    return 0;
  }
}

void nemotrt_close(void* engine) { delete static_cast<Engine*>(engine); }
}
#pragma GCC visibility pop
