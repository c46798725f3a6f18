// Refuses every program that would read or write outside its buffers, tensors and states. This is the
// one place that says what an operation takes; what it lets through, the kernels run without a check.

#include <cmath>

#include "parts.h"

namespace nemotrt {
namespace {

struct Signature {
  int sources, tensors, states, sizes, reals;
};
#define NEMOTRT_SIGNATURE(number, name, ...) {__VA_ARGS__},
constexpr Signature SIGNATURES[] = {NEMOTRT_KINDS(NEMOTRT_SIGNATURE)};

class Check : Parts {
 public:
  using Parts::Parts;

  bool program() { return parts() && operations(); }

 private:
  bool operations() {
    for (index_ = 0; index_ < p.num_ops; index_++)
      if (!operation(p.ops[index_])) return false;
    const Op& last = p.ops[--index_];
    if (last.kind != LINEAR || last.target.buffer != p.logits)
      return fail("the last operation must be the linear that writes the logits");
    return true;
  }

  bool counts(const Op& op) {
    struct Count {
      const char* what;
      int found, expected;
    };
    const Signature& s = SIGNATURES[op.kind];
    for (const Count& count : {Count{"sources", op.num_sources, s.sources},
                               {"tensors", op.num_tensors, s.tensors},
                               {"states", op.num_states, s.states},
                               {"sizes", op.num_sizes, s.sizes},
                               {"reals", op.num_reals, s.reals}})
      if (count.found != count.expected)
        return fail("it has %d %s, expected %d", count.found, count.what, count.expected);
    for (int i = 0; i < op.num_reals; i++)
      if (!std::isfinite(op.reals[i])) return fail("it has a number that is not finite");
    return true;
  }

  // Their weights are the caller's, who has checked them.
  bool adapters(const Op& op) {
    for (int i = 0; i < p.num_adapters; i++) {
      const Lora& lora = p.loras[(int64_t)index_ * p.num_adapters + i];
      bool is_whole = lora.rank == 0 || (op.kind == LINEAR && lora.down && lora.up);
      if (lora.rank < 0 || lora.rank > MAX_WIDTH || !is_whole) return fail("adapter %d: rank %d", i, lora.rank);
    }
    return true;
  }

  bool operation(const Op& op) {
    if (op.kind < 0 || op.kind >= NUM_KINDS) return fail("there is no kind %d", op.kind);
    if (op.rows < 0 || op.rows >= NUM_ROW_SETS) return fail("there are no rows %d", op.rows);
    if (!counts(op) || !adapters(op)) return false;
    switch (op.kind) {
      case LINEAR: return linear(op);
      case RELU2:
      case PACK: return sources(op) && operand(op);
      case NORM: return sources(op) && values(op, 0, 1, op.sources[0].width) && result(op, op.sources[0].width);
      case SWIGLU: return sources(op) && width(op.sources[1], op.sources[0].width) && operand(op);
      case GATED_NORM: return gated_norm(op);
      case MIX: return mix(op);
    }
    if (op.rows != TOKENS) return fail("it works on tokens");
    if (!rows_view(op.target, op.kind == LAST_TOKEN ? SEQUENCES : TOKENS) || !sources(op)) return false;
    switch (op.kind) {
      case EMBED: return embed(op);
      case CONV: return conv(op);
      case SCAN: return scan(op);
      case ATTENTION: return attention(op);
      case ROUTE: return route(op);
      case EXPERTS: return experts(op);
      default:  // LAST_TOKEN
        if (op.target.buffer == p.logits) return fail("only a linear writes the logits");
        return width(op.sources[0], op.target.width);
    }
  }

  bool embed(const Op& op) {  // table
    const TensorSpec* table = tensor(op, 0);
    if (!table) return false;
    return (table->kind <= TABLE_BF16 && table->rows == p.vocab_size && table->columns == op.target.width) ||
           fail("%.200s is no table of %d tokens", name(*table), p.vocab_size);
  }

  bool gated_norm(const Op& op) {  // x, gate; weight; groups
    if (!sources(op) || !sizes(op) || !width(op.sources[1], op.sources[0].width)) return false;
    int columns = op.sources[0].width;
    if (columns % op.sizes[0]) return fail("%d groups of %d columns", op.sizes[0], columns);
    return values(op, 0, 1, columns) && operand(op);
  }

  bool conv(const Op& op) {  // weight, bias; window; kernel
    int kernel = op.sizes[0], channels = op.target.width;
    if (kernel < 2 || kernel > MAX_CONV_KERNEL) return fail("a kernel of %d", kernel);
    return width(op.sources[0], channels) && values(op, 0, kernel, channels) && values(op, 1, 1, channels) &&
           state(op, 0, (int64_t)(kernel - 1) * channels) && jobs(channels);
  }

  bool linear(const Op& op) {  // weight, scale; whether it adds
    const View &x = op.sources[0], &y = op.target;
    if (!buffer(x) || !rows_view(y, op.rows)) return false;
    const TensorSpec* weight = tensor(op, 0);
    if (!weight) return false;
    if (weight->kind < PANELS_FLOAT)
      return fail("%.200s is %s, no weight", name(*weight), TENSOR_KIND_NAMES[weight->kind]);
    int wanted = operand_of(weight->kind);
    if (p.buffers[x.buffer].format != wanted)
      return fail("%s needs an %s", TENSOR_KIND_NAMES[weight->kind], FORMAT_NAMES[wanted]);
    if (x.column != 0 || held_width_[x.buffer] != x.width || held_rows_[x.buffer] != op.rows + 1)
      return fail("operand %d does not hold these rows", x.buffer);
    if (weight->rows != y.width || weight->columns != x.width)
      return fail("%.200s is [%d, %d]", name(*weight), weight->rows, weight->columns);
    if (!scale(op, *weight)) return false;
    if (y.column + round_up(y.width, PANEL) > round_up(p.buffers[y.buffer].width, PANEL))
      return fail("its last panel does not fit the target");
    if (y.buffer == p.logits && (op.sizes[0] || y.column)) return fail("logits can't be added to");
    for (int i = index_ - 1; i >= 0 && p.ops[i].kind == LINEAR; i--)  // they may run beside this one
      if (overlaps(padded(p.ops[i].target), padded(y))) return fail("it overlaps a linear before it");
    return true;
  }

  bool scale(const Op& op, const TensorSpec& weight) {
    bool is_int8 = weight.kind == PANELS_INT8, has_scale = is_int8 || weight.kind >= PANELS_FLOAT8;
    if (has_scale != (op.tensors[1] >= 0)) return fail("weights that are codes need a scale, and only those");
    if (!has_scale) return true;
    if (!values(op, 1, 1, round_up(weight.rows, PANEL))) return false;
    const TensorSpec& scale = p.tensors[op.tensors[1]];
    bool is_fit = scale.rows == 1 || (is_int8 && scale.rows == blocks_of(weight.columns));
    return is_fit || fail("%.200s has %d blocks of scales", name(scale), scale.rows);
  }

  // What becomes an operand, or rows of its own.
  bool result(const Op& op, int expected) {
    if (!buffer(op.target)) return false;
    if (p.buffers[op.target.buffer].format != ROWS) return operand(op, expected);
    if (op.target.buffer == p.logits) return fail("only a linear writes the logits");
    return rows_view(op.target, op.rows) && width(op.target, expected);
  }

  bool route(const Op& op) {  // scores; bias; chosen, groups, chosen groups, whether they are normalized
    int64_t experts = op.sources[0].width, chosen = op.sizes[0], groups = op.sizes[1], best = op.sizes[2];
    if (chosen < 1 || groups < 1 || best < 1 || best > groups || experts % groups ||
        chosen > experts / groups * best)
      return fail("%lld of %lld experts in %lld of %lld groups", (long long)chosen, (long long)experts,
                  (long long)best, (long long)groups);
    return values(op, 0, 1, experts) && width(op.target, 2 * chosen) && jobs(1);
  }

  bool experts(const Op& op) {  // x, choice; weight, scale; experts, chosen, inputs, whether results are squared
    int64_t experts = op.sizes[0], chosen = op.sizes[1];
    const TensorSpec* weight = tensor(op, 0);
    if (!weight) return false;
    if (weight->kind < PANELS_FLOAT)
      return fail("%.200s is %s, no weight", name(*weight), TENSOR_KIND_NAMES[weight->kind]);
    if (experts < 1 || experts > MAX_EXPERTS || chosen < 1 || chosen > experts ||
        weight->rows % (experts * PANEL) || weight->columns != op.sizes[2])
      return fail("%lld of %lld experts in [%d, %d]", (long long)chosen, (long long)experts, weight->rows,
                  weight->columns);
    int64_t segment = round_up(weight->columns, PANEL), rows = weight->rows / experts;
    bool is_each = op.sources[0].width == chosen * segment;
    return (is_each || width(op.sources[0], weight->columns)) && width(op.sources[1], 2 * chosen) &&
           width(op.target, chosen * rows) && scale(op, *weight) && jobs(chosen * rows / PANEL);
  }

  bool mix(const Op& op) {  // pairs, choice; chosen, whether it adds
    int64_t chosen = op.sizes[0], segment = round_up(op.target.width, PANEL);
    if (chosen < 1 || chosen > MAX_EXPERTS) return fail("%lld chosen experts", (long long)chosen);
    if (!sources(op) || !width(op.sources[0], chosen * segment) || !width(op.sources[1], 2 * chosen) ||
        !result(op, op.target.width))
      return false;
    bool is_rows = p.buffers[op.target.buffer].format == ROWS;
    return is_rows || !op.sizes[1] || fail("an operand can't be added to");
  }

  static View padded(View view) {
    view.width = (int)round_up(view.width, PANEL);
    return view;
  }

  bool scan(const Op& op) {  // x, B, C, dt; dt_bias, A, D; state; heads, head_dim, state size, groups
    if (!sizes(op)) return false;
    int64_t heads = op.sizes[0], inner = heads * op.sizes[1], size = op.sizes[2], groups = op.sizes[3];
    if (heads % groups) return fail("%lld heads in %lld groups", (long long)heads, (long long)groups);
    return width(op.target, inner) && width(op.sources[0], inner) && width(op.sources[1], groups * size) &&
           width(op.sources[2], groups * size) && width(op.sources[3], heads) && values(op, 0, 1, heads) &&
           values(op, 1, 1, heads) && values(op, 2, 1, heads) && state(op, 0, inner * size) && jobs(heads);
  }

  bool cache(const Op& op, int place) {
    int s = op.states[place];
    int format = s >= 0 && s < p.num_states ? p.states[s].format : FLOAT32;
    return state(op, place, op.sizes[1] * cache_row_elements(op.sizes[2], format) * p.max_seq_len);
  }

  bool attention(const Op& op) {  // q, k, v; norms of q and k, cosine, sine; caches; heads, kv heads, depth
    if (!sizes(op)) return false;
    int64_t heads = op.sizes[0], kv_heads = op.sizes[1], depth = op.sizes[2];
    if (heads % kv_heads) return fail("%lld heads share %lld", (long long)heads, (long long)kv_heads);
    bool fits = width(op.target, heads * depth) && width(op.sources[0], heads * depth) &&
                width(op.sources[1], kv_heads * depth) && width(op.sources[2], kv_heads * depth) &&
                jobs(kv_heads);
    if (!fits) return false;
    bool has_rotary = op.tensors[2] >= 0;
    if (has_rotary != (op.tensors[3] >= 0) || (has_rotary && depth % 2))
      return fail("half of a rotary table, or an odd head");
    for (int i = 0; i < 4; i++)
      if (op.tensors[i] >= 0 && !(i < 2 ? values(op, i, 1, depth) : values(op, i, p.max_seq_len, depth / 2)))
        return false;
    return cache(op, 0) && cache(op, 1);
  }
};

}  // namespace

const char* fault_of(const ProgramSpec& program, char* text, size_t size) {
  return Check(program, text, size).program() ? nullptr : text;
}

}  // namespace nemotrt
