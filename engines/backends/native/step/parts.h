// What the checks of a program's operations share: its parts checked by themselves, and what a view, a
// tensor and a state must be for an operation.
#pragma once

#include <cstdarg>
#include <cstdio>
#include <vector>

#include "program.h"

namespace nemotrt {

constexpr int MAX_COUNT = 1 << 26;
constexpr int MAX_BUFFERS = 64;
constexpr int MAX_THREADS = 1024;
constexpr int MAX_WIDTH = 1 << 26;
constexpr int MAX_JOBS = 1 << 30;  // of one operation in one step
constexpr int ALIGNMENT = 4096;
constexpr int MAX_EXPERTS = 1 << 16;
constexpr int MAX_ADAPTERS = 1 << 10;
constexpr int64_t MAX_ELEMENTS = int64_t(1) << 56;  // of a state, all slots together

constexpr const char* KIND_NAMES[] = {NEMOTRT_KINDS(NEMOTRT_NAME)};
constexpr const char* TENSOR_KIND_NAMES[] = {NEMOTRT_TENSOR_KINDS(NEMOTRT_NAME)};
constexpr const char* FORMAT_NAMES[] = {NEMOTRT_FORMATS(NEMOTRT_NAME)};
constexpr const char* STATE_FORMAT_NAMES[] = {NEMOTRT_STATE_FORMATS(NEMOTRT_NAME)};

// Each check returns whether all is well; if not, the text says what is wrong.
class Parts {
 public:
  Parts(const ProgramSpec& program, char* text, size_t size) : p(program), text_(text), size_(size) {}

  // Buffers, tensors and states, before the operations that use them.
  bool parts() { return limits() && buffers() && tensors() && states(); }

 protected:
  const ProgramSpec& p;
  int index_ = -1;  // of the operation that is checked
  // What each operand holds: written by the last row operation.
  int held_width_[MAX_BUFFERS] = {}, held_rows_[MAX_BUFFERS] = {};

  __attribute__((format(printf, 2, 3))) bool fail(const char* format, ...) {
    int used = 0;
    if (index_ >= 0) {
      int kind = p.ops[index_].kind;
      bool is_known = kind >= 0 && kind < NUM_KINDS;
      used = snprintf(text_, size_, "operation %d (%s): ", index_, is_known ? KIND_NAMES[kind] : "unknown");
    }
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text_ + used, size_ - used, format, arguments);
    va_end(arguments);
    return false;
  }

  template <typename Spec>
  static const char* name(const Spec& spec) {
    return spec.name ? spec.name : "unnamed";
  }

  bool buffer(const View& v) {
    return (v.buffer >= 0 && v.buffer < p.num_buffers) || fail("there is no buffer %d", v.buffer);
  }

  bool columns(const View& v) {
    int width = p.buffers[v.buffer].width;
    if (v.column >= 0 && v.width >= 1 && v.column <= width && v.width <= width - v.column) return true;
    return fail("columns %d to %lld of buffer %d (%d)", v.column, (long long)v.column + v.width, v.buffer,
                width);
  }

  bool rows_view(const View& v, int rows) {
    if (!buffer(v)) return false;
    const BufferSpec& b = p.buffers[v.buffer];
    if (b.format != ROWS) return fail("buffer %d is %s", v.buffer, FORMAT_NAMES[b.format]);
    if (b.rows != rows) return fail("buffer %d has other rows", v.buffer);
    return columns(v);
  }

  // All that an operation reads, of its own set of rows, apart from its target.
  bool sources(const Op& op) {
    for (int i = 0; i < op.num_sources; i++) {
      if (!rows_view(op.sources[i], op.rows)) return false;
      bool in_place = op.kind == CONV && op.sources[i].column == op.target.column;
      if (overlaps(op.sources[i], op.target) && !in_place) return fail("its target overlaps a source");
    }
    return true;
  }

  static bool overlaps(const View& a, const View& b) {
    return a.buffer == b.buffer && a.column < (int64_t)b.column + b.width &&
           b.column < (int64_t)a.column + a.width;
  }

  bool width(const View& v, int64_t expected) {
    return v.width == expected || fail("width %d, expected %lld", v.width, (long long)expected);
  }

  // The tensor in a place; nullptr, with the fault, if there is none.
  const TensorSpec* tensor(const Op& op, int place) {
    int t = op.tensors[place];
    if (t < 0) fail("tensor %d is missing", place);
    else if (t >= p.num_tensors) fail("it names a tensor past the last, %d", p.num_tensors - 1);
    else return &p.tensors[t];
    return nullptr;
  }

  bool values(const Op& op, int place, int64_t rows, int64_t columns) {
    const TensorSpec* t = tensor(op, place);
    if (!t) return false;
    return (t->kind == VALUES && t->rows >= rows && t->columns == columns) ||
           fail("%.200s is %s [%d, %d], expected values [%lld, %lld]", name(*t), TENSOR_KIND_NAMES[t->kind],
                t->rows, t->columns, (long long)rows, (long long)columns);
  }

  bool state(const Op& op, int place, int64_t elements) {
    int s = op.states[place];
    if (s < 0 || s >= p.num_states) return fail("it names a state past the last, %d", p.num_states - 1);
    const StateSpec& spec = p.states[s];
    if (spec.slot_elements != elements)
      return fail("%.200s has %lld elements, expected %lld", name(spec), (long long)spec.slot_elements,
                  (long long)elements);
    int only = spec.format == FLOAT32 ? op.kind : spec.format == FLOAT16 ? SCAN : ATTENTION;
    if (op.kind != only) return fail("%.200s must not be %s", name(spec), STATE_FORMAT_NAMES[spec.format]);
    if (owner_[s] >= 0) return fail("%.200s is the state of operation %d", name(spec), owner_[s]);
    owner_[s] = index_;
    return true;
  }

  bool sizes(const Op& op) {
    for (int i = 0; i < op.num_sizes; i++)
      if (op.sizes[i] < 1 || op.sizes[i] > MAX_WIDTH) return fail("size %d is %d", i, op.sizes[i]);
    return true;
  }

  bool jobs(int64_t a_token) {
    return a_token * p.max_tokens <= MAX_JOBS ||
           fail("%lld jobs for each of %d tokens", (long long)a_token, p.max_tokens);
  }

  // A row operation's result, kept for the linears that follow.
  bool operand(const Op& op) { return operand(op, op.sources[0].width); }
  bool operand(const Op& op, int expected) {
    const View& v = op.target;
    if (!buffer(v)) return false;
    if (p.buffers[v.buffer].format == ROWS) return fail("buffer %d is rows, not an operand", v.buffer);
    if (v.column != 0) return fail("an operand starts at column 0, not %d", v.column);
    if (!columns(v) || !width(v, expected)) return false;
    held_width_[v.buffer] = v.width;
    held_rows_[v.buffer] = op.rows + 1;
    return true;
  }

 private:
  char* text_;
  size_t size_;
  std::vector<int> owner_;  // of each state: an operation, or -1

  bool limits() {
    struct Limit {
      const char* name;
      int value, least, most;
    };
    if (p.num_ops == 0) return fail("there are no operations");
    for (const Limit& limit : {Limit{"the number of operations", p.num_ops, 1, MAX_COUNT},
                               {"the number of buffers", p.num_buffers, 1, MAX_BUFFERS},
                               {"the number of tensors", p.num_tensors, 1, MAX_COUNT},
                               {"the number of states", p.num_states, 0, MAX_COUNT},
                               {"vocab_size", p.vocab_size, 1, MAX_COUNT},
                               {"max_slots", p.max_slots, 1, MAX_COUNT},
                               {"max_seq_len", p.max_seq_len, 1, MAX_COUNT},
                               {"max_tokens", p.max_tokens, 1, MAX_COUNT},
                               {"max_draft", p.max_draft, 0, MAX_DRAFT},
                               {"num_threads", p.num_threads, 1, MAX_THREADS},
                               {"the number of adapters", p.num_adapters, 0, MAX_ADAPTERS}})
      if (limit.value < limit.least || limit.value > limit.most)
        return fail("%s must be %d to %d, got %d", limit.name, limit.least, limit.most, limit.value);
    if (!p.ops || !p.buffers || !p.tensors || (p.num_states && !p.states) || !p.weights ||
        (p.num_adapters && !p.loras))
      return fail("there is a null pointer");
    return true;
  }

  bool buffers() {
    for (int i = 0; i < p.num_buffers; i++) {
      const BufferSpec& b = p.buffers[i];
      if (b.format < 0 || b.format >= NUM_FORMATS || b.rows < 0 || b.rows >= NUM_ROW_SETS ||
          b.width < 1 || b.width > MAX_WIDTH)
        return fail("buffer %d: format %d, rows %d, width %d", i, b.format, b.rows, b.width);
    }
    if (p.logits < 0 || p.logits >= p.num_buffers)
      return fail("there is no buffer %d for the logits", p.logits);
    const BufferSpec& logits = p.buffers[p.logits];
    if (logits.format != ROWS || logits.rows != SEQUENCES || logits.width != p.vocab_size)
      return fail("buffer %d can't hold the logits", p.logits);
    return true;
  }

  bool tensors() {
    for (int i = 0; i < p.num_tensors; i++) {
      const TensorSpec& t = p.tensors[i];
      if (t.kind < 0 || t.kind >= NUM_TENSOR_KINDS || t.rows < 1 || t.columns < 1 ||
          t.rows > MAX_WIDTH || t.columns > MAX_WIDTH)
        return fail("tensor %d: kind %d, shape [%d, %d]", i, t.kind, t.rows, t.columns);
      bool packed = t.kind >= PANELS_FLOAT;
      int64_t rows = packed ? round_up(t.rows, PANEL) : t.rows;
      int64_t columns = packed ? depth_of(t.kind, t.columns) : t.columns;
      int64_t bytes = bytes_of(t.kind, rows * columns);
      if (t.offset < 0 || t.offset % ALIGNMENT || t.offset > p.weights_bytes ||
          bytes > p.weights_bytes - t.offset)
        return fail("tensor %d (%.200s) lies outside %lld bytes of weights", i, name(t),
                    (long long)p.weights_bytes);
    }
    return true;
  }

  bool states() {
    for (int i = 0; i < p.num_states; i++) {
      const StateSpec& s = p.states[i];
      if (s.format < 0 || s.format >= NUM_STATE_FORMATS) return fail("state %d: format %d", i, s.format);
      if (s.slot_elements < 1 || s.slot_elements > MAX_ELEMENTS / p.max_slots)
        return fail("state %d (%.200s) has %lld elements in each of %d slots", i, name(s),
                    (long long)s.slot_elements, p.max_slots);
    }
    owner_.assign(p.num_states, -1);
    return true;
  }
};

}  // namespace nemotrt
