// Refuses every program that would read or write outside its buffers, tensors and states.

#include <cstdarg>
#include <cstdio>
#include <initializer_list>

#include "program.h"

namespace nemotrt {
namespace {

constexpr int MAX_COUNT = 1 << 20;
constexpr int MAX_WIDTH = 1 << 26;
constexpr int MAX_CONV_KERNEL = 16;
constexpr int ALIGNMENT = 64;
constexpr int BYTES_OF[NUM_TENSOR_KINDS] = {4, 2, 4, 2, 1, 1};

class Check {
 public:
  Check(const ProgramSpec& program, char* text, size_t size) : p(program), text_(text), size_(size) {}

  bool program() {
    return limits() && buffers() && tensors() && states() && operations();
  }

 private:
  const ProgramSpec& p;
  char* text_;
  size_t size_;
  int index_ = -1;
  // What each operand holds: written by the last row operation.
  int held_width_[64] = {}, held_rows_[64] = {};

  __attribute__((format(printf, 2, 3))) bool fail(const char* format, ...) {
    int used = index_ < 0 ? 0 : snprintf(text_, size_, "operation %d: ", index_);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text_ + used, size_ - used, format, arguments);
    va_end(arguments);
    return false;
  }

  bool limits() {
    for (int count : {p.num_ops, p.num_buffers, p.num_tensors, p.vocab_size, p.max_slots, p.max_seq_len,
                      p.max_tokens, p.num_threads})
      if (count < 1 || count > MAX_COUNT * 64) return fail("a count or limit is %d", count);
    if (p.num_buffers > 64) return fail("%d buffers, at most 64", p.num_buffers);
    if (p.num_threads > 1024) return fail("%d threads, at most 1024", p.num_threads);
    if (p.num_states < 0) return fail("a negative number of states");
    if (!p.ops || !p.buffers || !p.tensors || (p.num_states && !p.states) || !p.weights)
      return fail("a null pointer");
    return true;
  }

  bool buffers() {
    for (int i = 0; i < p.num_buffers; i++) {
      const BufferSpec& b = p.buffers[i];
      if (b.format < 0 || b.format >= NUM_FORMATS || b.rows < 0 || b.rows >= NUM_ROW_SETS ||
          b.width < 1 || b.width > MAX_WIDTH)
        return fail("buffer %d: format %d, rows %d, width %d", i, b.format, b.rows, b.width);
    }
    if (p.logits < 0 || p.logits >= p.num_buffers) return fail("no buffer %d for logits", p.logits);
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
      int64_t columns = packed ? round_up(t.columns, PANEL) : t.columns;
      int64_t bytes = rows * columns * BYTES_OF[t.kind];
      if (t.offset < 0 || t.offset % ALIGNMENT || t.offset > p.weights_bytes ||
          bytes > p.weights_bytes - t.offset)
        return fail("tensor %d: %lld bytes at %lld of %lld", i, (long long)bytes, (long long)t.offset,
                    (long long)p.weights_bytes);
    }
    return true;
  }

  bool states() {
    for (int i = 0; i < p.num_states; i++)
      if (!p.states[i].data || p.states[i].slot_elements < 1 || p.states[i].format < 0 ||
          p.states[i].format >= NUM_STATE_FORMATS)
        return fail("state %d is empty or of format %d", i, p.states[i].format);
    return true;
  }

  bool operations() {
    for (index_ = 0; index_ < p.num_ops; index_++)
      if (!operation(p.ops[index_])) return false;
    const Op& last = p.ops[--index_];
    if (last.kind != LINEAR || last.target.buffer != p.logits)
      return fail("the last operation must be the linear that writes the logits");
    return true;
  }

  bool rows_view(const View& v, int rows) {
    if (v.buffer < 0 || v.buffer >= p.num_buffers) return fail("no buffer %d", v.buffer);
    const BufferSpec& b = p.buffers[v.buffer];
    if (b.format != ROWS || b.rows != rows) return fail("buffer %d has other rows", v.buffer);
    if (v.column < 0 || v.width < 1 || v.column > b.width || v.width > b.width - v.column)
      return fail("columns %d + %d of buffer %d, which has %d", v.column, v.width, v.buffer, b.width);
    return true;
  }

  bool sources(const Op& op, int count) {
    for (int i = 0; i < count; i++) {
      if (!rows_view(op.sources[i], op.rows)) return false;
      bool in_place = op.kind == CONV && op.sources[i].column == op.target.column;
      if (overlaps(op.sources[i], op.target) && !in_place) return fail("its target overlaps a source");
    }
    return true;
  }

  static bool overlaps(const View& a, const View& b) {
    return a.buffer == b.buffer && a.column < b.column + b.width && b.column < a.column + a.width;
  }

  bool width(const View& v, int64_t expected) {
    return v.width == expected || fail("width %d, expected %lld", v.width, (long long)expected);
  }

  bool tensor(const Op& op, int place, int64_t rows, int64_t columns) {
    int t = op.tensors[place];
    if (t < 0 || t >= p.num_tensors) return fail("no tensor %d", t);
    const TensorSpec& spec = p.tensors[t];
    if (spec.kind != VALUES || spec.rows < rows || spec.columns != columns)
      return fail("tensor %d: kind %d [%d, %d], expected values [%lld, %lld]", t, spec.kind, spec.rows,
                  spec.columns, (long long)rows, (long long)columns);
    return true;
  }

  bool state(const Op& op, int place, int64_t elements) {
    int s = op.states[place];
    if (s < 0 || s >= p.num_states) return fail("no state %d", s);
    if (p.states[s].format == HALF && op.kind != SCAN) return fail("state %d must be float32", s);
    return p.states[s].slot_elements == elements ||
           fail("state %d has %lld elements a slot, expected %lld", s,
                (long long)p.states[s].slot_elements, (long long)elements);
  }

  bool sizes(const Op& op, int count, int64_t limit = MAX_WIDTH) {
    for (int i = 0; i < count; i++)
      if (op.sizes[i] < 1 || op.sizes[i] > limit) return fail("size %d", op.sizes[i]);
    return true;
  }

  // A row operation's result, kept for the linears that follow.
  bool operand(const Op& op, int64_t expected) {
    const View& v = op.target;
    if (v.buffer < 0 || v.buffer >= p.num_buffers || p.buffers[v.buffer].format == ROWS)
      return fail("its target must be an operand");
    if (v.column != 0 || v.width != expected || v.width > p.buffers[v.buffer].width)
      return fail("operand %d can't hold %lld columns", v.buffer, (long long)expected);
    held_width_[v.buffer] = v.width;
    held_rows_[v.buffer] = op.rows + 1;
    return true;
  }

  bool operation(const Op& op) {
    if (op.rows < 0 || op.rows >= NUM_ROW_SETS) return fail("rows %d", op.rows);
    bool needs_tokens = op.kind == EMBED || op.kind == CONV || op.kind == SCAN || op.kind == ATTENTION ||
                        op.kind == LAST_TOKEN;
    if (needs_tokens && op.rows != TOKENS) return fail("it works on tokens");
    switch (op.kind) {
      case EMBED: return embed(op);
      case LINEAR: return linear(op);
      case NORM: return sources(op, 1) && tensor(op, 0, 1, op.sources[0].width) && operand(op, op.sources[0].width);
      case RELU2:
      case PACK: return sources(op, 1) && operand(op, op.sources[0].width);
      case SWIGLU:
        return sources(op, 2) && width(op.sources[1], op.sources[0].width) && operand(op, op.sources[0].width);
      case GATED_NORM:
        return sources(op, 2) && width(op.sources[1], op.sources[0].width) && sizes(op, 1) &&
               (op.sources[0].width % op.sizes[0] == 0 || fail("%d groups", op.sizes[0])) &&
               tensor(op, 0, 1, op.sources[0].width) && operand(op, op.sources[0].width);
      case CONV:
        return rows_view(op.target, TOKENS) && sources(op, 1) && width(op.sources[0], op.target.width) &&
               sizes(op, 1, MAX_CONV_KERNEL) && (op.sizes[0] > 1 || fail("a kernel of 1")) &&
               tensor(op, 0, op.sizes[0], op.target.width) && tensor(op, 1, 1, op.target.width) &&
               state(op, 0, (int64_t)(op.sizes[0] - 1) * op.target.width);
      case SCAN: return scan(op);
      case ATTENTION: return attention(op);
      case LAST_TOKEN:
        return rows_view(op.target, SEQUENCES) && rows_view(op.sources[0], TOKENS) &&
               op.target.buffer != p.logits && width(op.sources[0], op.target.width);
      default: return fail("unknown kind %d", op.kind);
    }
  }

  bool embed(const Op& op) {
    int t = op.tensors[0];
    if (!rows_view(op.target, TOKENS)) return false;
    if (t < 0 || t >= p.num_tensors) return fail("no tensor %d", t);
    const TensorSpec& spec = p.tensors[t];
    return (spec.kind <= TABLE_BF16 && spec.rows == p.vocab_size && spec.columns == op.target.width) ||
           fail("tensor %d is no embedding table", t);
  }

  bool linear(const Op& op) {
    const View &x = op.sources[0], &y = op.target;
    if (x.buffer < 0 || x.buffer >= p.num_buffers) return fail("no buffer %d", x.buffer);
    int t = op.tensors[0];
    if (t < 0 || t >= p.num_tensors || p.tensors[t].kind < PANELS_FLOAT) return fail("no weight %d", t);
    const TensorSpec& weight = p.tensors[t];
    bool is_int8 = weight.kind == PANELS_INT8;
    if (p.buffers[x.buffer].format != (is_int8 ? OPERAND_INT16 : OPERAND_FLOAT))
      return fail("buffer %d is no operand of weight %d", x.buffer, t);
    if (x.column != 0 || held_width_[x.buffer] != x.width || held_rows_[x.buffer] != op.rows + 1)
      return fail("operand %d does not hold these rows", x.buffer);
    bool has_scale = is_int8 || weight.kind == PANELS_FLOAT8;
    if (has_scale && !tensor(op, 1, 1, round_up(weight.rows, PANEL))) return false;
    int scale_rows = has_scale ? p.tensors[op.tensors[1]].rows : 1;
    if (scale_rows != 1 && (scale_rows != blocks_of(weight.columns) || !is_int8)) return fail("%d blocks of scales", scale_rows);
    if (!width(x, weight.columns) || !rows_view(y, op.rows) || !width(y, weight.rows)) return false;
    int64_t padded = y.column + round_up(y.width, PANEL);
    if (padded > round_up(p.buffers[y.buffer].width, PANEL)) return fail("its last panel does not fit");
    if (y.buffer == p.logits && (op.sizes[0] || y.column)) return fail("logits can't be added to");
    if (index_ == 0 || p.ops[index_ - 1].kind != LINEAR) return true;
    View before = p.ops[index_ - 1].target, here = y;  // these two run without waiting
    before.width = (int)round_up(before.width, PANEL);
    here.width = (int)round_up(here.width, PANEL);
    return !overlaps(before, here) || fail("it overlaps the linear before it");
  }

  bool scan(const Op& op) {
    if (!rows_view(op.target, TOKENS) || !sources(op, 4) || !sizes(op, 4)) return false;
    int64_t heads = op.sizes[0], inner = heads * op.sizes[1], size = op.sizes[2], groups = op.sizes[3];
    if (heads % groups) return fail("%lld heads in %lld groups", (long long)heads, (long long)groups);
    return width(op.target, inner) && width(op.sources[0], inner) && width(op.sources[1], groups * size) &&
           width(op.sources[2], groups * size) && width(op.sources[3], heads) && tensor(op, 0, 1, heads) &&
           tensor(op, 1, 1, heads) && tensor(op, 2, 1, heads) && state(op, 0, inner * size);
  }

  bool attention(const Op& op) {
    if (!rows_view(op.target, TOKENS) || !sources(op, 3) || !sizes(op, 3)) return false;
    int64_t heads = op.sizes[0], kv_heads = op.sizes[1], depth = op.sizes[2];
    if (heads % kv_heads) return fail("%lld heads share %lld", (long long)heads, (long long)kv_heads);
    for (int i = 0; i < 2; i++)
      if (op.tensors[i] >= 0 && !tensor(op, i, 1, depth)) return false;
    if ((op.tensors[2] >= 0) != (op.tensors[3] >= 0)) return fail("half of a rotary table");
    if (op.tensors[2] >= 0 && depth % 2) return fail("a rotary head of %lld", (long long)depth);
    for (int i = 2; i < 4; i++)
      if (op.tensors[i] >= 0 && !tensor(op, i, p.max_seq_len, depth / 2)) return false;
    int64_t elements = kv_heads * depth * p.max_seq_len;
    return width(op.target, heads * depth) && width(op.sources[0], heads * depth) &&
           width(op.sources[1], kv_heads * depth) && width(op.sources[2], kv_heads * depth) &&
           state(op, 0, elements) && state(op, 1, elements);
  }
};

}  // namespace

const char* fault_of(const ProgramSpec& program, char* text, size_t size) {
  return Check(program, text, size).program() ? nullptr : text;
}

}  // namespace nemotrt
