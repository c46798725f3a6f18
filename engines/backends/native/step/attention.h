// Causal grouped-query attention over the slot's own cache, [kv_heads, max_seq_len, head_dim].
//
// The query heads of a KV head and of successive tokens are queries of the same keys. They go through
// the keys block by block, each with its own running softmax, a few at once in registers. What is
// computed for a query, and in which order, depends on its position alone: blocks begin at multiples of
// KEY_BLOCK, a dot product is summed by lanes and then across them, values are added key after key,
// spans of SPAN keys have a softmax of their own and are merged one after the other. So its result is
// the same bits in any company, and whether its spans are one thread's work or that of several.
#pragma once

#include <utility>

#include "rows.h"

namespace {

constexpr int KEY_BLOCK = 64;
static_assert(SPAN % KEY_BLOCK == 0, "a block of keys belongs to one span");
constexpr int KEYS = 4;  // whose dot products are formed at once

// How many queries go through a block together, for how many of them dot products are formed at once,
// and how many registers of each one's values are summed at once: as many as there are registers for.
#if defined(__AVX512VNNI__)
constexpr int TILE = 6, DOT_QUERIES = 6, VALUES_AT_ONCE = 4;
#elif defined(__AVX2__)
constexpr int TILE = 6, DOT_QUERIES = 3, VALUES_AT_ONCE = 2;
#else
constexpr int TILE = 2, DOT_QUERIES = 1, VALUES_AT_ONCE = 2;
#endif

INLINE float* cache_of(const Machine& machine, const StateSpec& state, int slot, int head, int depth) {
  return (float*)state.data + slot * state.slot_elements + (int64_t)head * machine.max_seq_len * depth;
}

// Normalizes and rotates one head of a query or key as the model asks; `out` may be `x`.
INLINE void place_head(const Machine& machine, const Op& op, const float* x, int norm, int position,
                       float* out) {
  int depth = op.sizes[2], half = depth / 2;
  if (norm >= 0)
    rms_norm(x, values(machine, norm), depth, op.reals[0], out);
  else if (out != x)
    memcpy(out, x, depth * sizeof(float));
  if (op.tensors[2] < 0) return;
  const float* cosine = values(machine, op.tensors[2]) + (int64_t)position * half;
  const float* sine = values(machine, op.tensors[3]) + (int64_t)position * half;
  for (int k = 0; k < half; k += LANES) {
    int n = half - k;
    Vec a = load(out + k, n), b = load(out + half + k, n), c = load(cosine + k, n), s = load(sine + k, n);
    store(out + k, a * c - b * s, n);
    store(out + half + k, b * c + a * s, n);
  }
}

// Queries in place, keys and values into the cache.
void place_heads(const Machine& machine, const Step& step, const Op& op, Range rows) {
  int q_heads = op.sizes[0], kv_heads = op.sizes[1], depth = op.sizes[2];
  for (int row = rows.first; row < rows.last; row++) {
    int owner = step.owners[row];
    const Sequence& sequence = step.sequences[owner];
    int position = sequence.past + row - step.starts[owner];
    float* q = const_cast<float*>(row_of(machine, op.sources[0], row));
    const float *k = row_of(machine, op.sources[1], row), *v = row_of(machine, op.sources[2], row);
    for (int h = 0; h < q_heads; h++)
      place_head(machine, op, q + h * depth, op.tensors[0], position, q + h * depth);
    for (int h = 0; h < kv_heads; h++) {
      int64_t at = (int64_t)position * depth;
      float* key = cache_of(machine, machine.states[op.states[0]], sequence.slot, h, depth) + at;
      place_head(machine, op, k + h * depth, op.tensors[1], position, key);
      memcpy(cache_of(machine, machine.states[op.states[1]], sequence.slot, h, depth) + at,
             v + h * depth, depth * sizeof(float));
    }
  }
}

// A softmax over some keys.
struct Part {
  float *values, *softmax;  // the weighed sums of values; the greatest score, the sum of weights
  Part(float* at, int depth) : values(at), softmax(at + round_up(depth, PANEL)) {}
  void clear(int depth) {
    memset(values, 0, round_up(depth, PANEL) * sizeof(float));
    softmax[0] = -1e30f, softmax[1] = 0;
  }
};

struct Query {
  const float* q;
  int held;  // keys that it sees
  Part part{nullptr, 0};
};

// Whom a tile works for: its queries in the order of their tokens, with a score for each key.
struct Block {
  Query* queries;
  const float *keys, *vals;
  int depth;
  float scale;
  float (*scores)[KEY_BLOCK];
  bool fetches;
};

// Asks for rows that are read soon, else memory is waited for: the columns of values are read in turn.
INLINE void fetch(const float* rows, int depth) {
  for (int k = 0; k < KEYS * depth; k += 16) __builtin_prefetch(rows + k, 0, 2);
}

// Scores of Q queries and KEYS keys from `key` on; past the last key it takes the last again.
template <int Q>
__attribute__((noinline)) void dot_tile(const Block& block, int first, int key, int last) {
  int depth = block.depth, k = 0;
  const float *q[Q], *keys[KEYS];
  UNROLL for (int i = 0; i < Q; i++) q[i] = block.queries[first + i].q;
  UNROLL for (int j = 0; j < KEYS; j++) keys[j] = block.keys + (int64_t)least(key + j, last) * depth;
  Vec dots[Q][KEYS];
  UNROLL for (int i = 0; i < Q; i++) UNROLL for (int j = 0; j < KEYS; j++) dots[i][j] = splat(0);
  for (; k + LANES <= depth; k += LANES) {
    Vec parts[KEYS];
    UNROLL for (int j = 0; j < KEYS; j++) parts[j] = load(keys[j] + k);
    UNROLL for (int i = 0; i < Q; i++) {
      Vec part = load(q[i] + k);
      UNROLL for (int j = 0; j < KEYS; j++) {
        dots[i][j] = part * parts[j] + dots[i][j];
        PIN(dots[i][j]);
      }
    }
  }
  if (k < depth)
    UNROLL for (int i = 0; i < Q; i++) UNROLL for (int j = 0; j < KEYS; j++)
      dots[i][j] = load(q[i] + k, depth - k) * load(keys[j] + k, depth - k) + dots[i][j];
  UNROLL for (int i = 0; i < Q; i++) {
    Quarter scores = sums(dots[i]) * block.scale;
    memcpy(block.scores[first + i] + key, &scores, sizeof scores);
  }
}

// Adds the values of some keys, weighed, to columns of Q queries: V registers, or the `lanes` of one.
template <int Q, int V>
INLINE void add_columns(const Block& block, int first, Range keys, int column, int lanes) {
  Vec sums[Q][V];
  UNROLL for (int i = 0; i < Q; i++) UNROLL for (int v = 0; v < V; v++)
    sums[i][v] = load(block.queries[first + i].part.values + column + v * LANES);
  const float* value = block.vals + (int64_t)keys.first * block.depth + column;
  for (int j = keys.first; j < keys.last; j++, value += block.depth) {
    Vec parts[V];
    UNROLL for (int v = 0; v < V; v++) parts[v] = V > 1 ? load(value + v * LANES) : load(value, lanes);
    UNROLL for (int i = 0; i < Q; i++) {
      Vec weight = splat(block.scores[first + i][j]);
      UNROLL for (int v = 0; v < V; v++) {
        sums[i][v] = weight * parts[v] + sums[i][v];
        PIN(sums[i][v]);
      }
    }
  }
  UNROLL for (int i = 0; i < Q; i++) UNROLL for (int v = 0; v < V; v++)
    store(block.queries[first + i].part.values + column + v * LANES, sums[i][v]);
}
template <int Q>
__attribute__((noinline)) void value_tile(const Block& block, int first, Range keys) {
  constexpr int WIDTH = VALUES_AT_ONCE * LANES;
  int column = 0;
  for (; column + WIDTH <= block.depth; column += WIDTH)
    add_columns<Q, VALUES_AT_ONCE>(block, first, keys, column, LANES);
  for (; column < block.depth; column += LANES)
    add_columns<Q, 1>(block, first, keys, column, block.depth - column);
}

using DotRun = void (*)(const Block&, int, int, int);
using ValueRun = void (*)(const Block&, int, Range);
struct AttentionTiles {
  DotRun dots[DOT_QUERIES];
  ValueRun values[TILE];
};
template <int... D, int... V>
constexpr AttentionTiles attention_tiles(std::integer_sequence<int, D...>, std::integer_sequence<int, V...>) {
  return {{dot_tile<D + 1>...}, {value_tile<V + 1>...}};
}
constexpr AttentionTiles ATTENTION_TILES = attention_tiles(
    std::make_integer_sequence<int, DOT_QUERIES>(), std::make_integer_sequence<int, TILE>());

// Makes a query's scores of a block weights, and counts them into its softmax.
INLINE void weigh(float* scores, int count, int depth, Part& part) {
  int end = (int)round_up(count, LANES);
  for (int j = count; j < end; j++) scores[j] = -INFINITY;
  Vec peaks = splat(part.softmax[0]), total = splat(0);
  for (int j = 0; j < end; j += LANES) peaks = max(load(scores + j), peaks);
  float peak = largest(peaks);
  if (peak > part.softmax[0]) {
    float factor = expf(part.softmax[0] - peak);
    part.softmax[0] = peak;
    part.softmax[1] *= factor;
    for (int k = 0; k < depth; k += LANES) store(part.values + k, load(part.values + k) * factor);
  }
  for (int j = 0; j < end; j += LANES) store(scores + j, exponential(load(scores + j) - peak));
  for (int j = count; j < end; j++) scores[j] = 0;
  for (int j = 0; j < end; j += LANES) total += load(scores + j);
  part.softmax[1] += sum(total);
}

// Not inlined: the compiler could fuse its products in several ways.
__attribute__((noinline)) void merge(Part& whole, const Part& part, int depth) {
  float peak = part.softmax[0] > whole.softmax[0] ? part.softmax[0] : whole.softmax[0];
  float before = expf(whole.softmax[0] - peak), factor = expf(part.softmax[0] - peak);
  whole.softmax[0] = peak;
  whole.softmax[1] = whole.softmax[1] * before + part.softmax[1] * factor;
  for (int k = 0; k < depth; k += LANES)
    store(whole.values + k, load(whole.values + k) * before + load(part.values + k) * factor);
}

// Takes up to TILE queries through the keys from `start` on, a block's at most.
void attend_block(const Block& block, int queries, int start) {
  int counts[TILE];
  for (int i = 0; i < queries; i++) counts[i] = most(0, least(KEY_BLOCK, block.queries[i].held - start));
  int all = counts[0], any = counts[queries - 1];
  int steps = (queries + DOT_QUERIES - 1) / DOT_QUERIES;
  for (int key = 0; key < any; key += KEYS) {
    if (block.fetches) {
      fetch(block.vals + (int64_t)key * block.depth, block.depth);
      if (any == KEY_BLOCK) fetch(block.keys + (int64_t)(key + KEY_BLOCK) * block.depth, block.depth);
    }
    for (int s = 0; s < steps; s++) {
      int first = queries * s / steps, taken = queries * (s + 1) / steps - first;
      ATTENTION_TILES.dots[taken - 1](block, first, key, any - 1);
    }
  }
  for (int i = 0; i < queries; i++)
    if (counts[i]) weigh(block.scores[i], counts[i], block.depth, block.queries[i].part);
  ATTENTION_TILES.values[queries - 1](block, 0, {0, all});
  for (int i = 0; i < queries; i++)
    if (counts[i] > all) ATTENTION_TILES.values[0](block, i, {all, counts[i]});
}

// Takes queries of one sequence and a KV head, in the order of their tokens, through a span of keys.
void attend_span(const Machine& machine, const Op& op, int slot, int head, Query* queries, int count, int span) {
  int depth = op.sizes[2];
  int end = least(queries[count - 1].held, (span + 1) * SPAN);
  const float* keys = cache_of(machine, machine.states[op.states[0]], slot, head, depth);
  const float* vals = cache_of(machine, machine.states[op.states[1]], slot, head, depth);
  float scale = 1.f / sqrtf((float)depth), scores[TILE][KEY_BLOCK];
  for (int i = 0; i < count; i++) queries[i].part.clear(depth);
  for (int start = span * SPAN; start < end; start += KEY_BLOCK) {
    int64_t at = (int64_t)start * depth;
    for (int i = 0; i < count; i += TILE)
      attend_block({queries + i, keys + at, vals + at, depth, scale, scores, i == 0}, least(TILE, count - i), start);
  }
}

INLINE int held_by(const Step& step, int row) {
  int owner = step.owners[row];
  return step.sequences[owner].past + row - step.starts[owner] + 1;
}
INLINE int spans_of(int held) { return (held + SPAN - 1) / SPAN; }

INLINE void finish(const Part& whole, int depth, float* out) {
  float factor = 1.f / whole.softmax[1];
  for (int k = 0; k < depth; k += LANES) store(out + k, load(whole.values + k) * factor, depth - k);
}

// Some tokens of one sequence and a KV head. Their queries share the keys while they are in cache.
void attend_rows(const Machine& machine, const Step& step, const Op& op, int head, Range rows, float* scratch) {
  int depth = op.sizes[2], shared = op.sizes[0] / op.sizes[1];
  int slot = step.sequences[step.owners[rows.first]].slot, total = (rows.last - rows.first) * shared;
  int64_t size = part_elements(depth);
  float* wholes = scratch + ATTENTION_QUERIES * size;
  Query queries[ATTENTION_QUERIES];
  for (int first = 0; first < total; first += ATTENTION_QUERIES) {
    int count = least(ATTENTION_QUERIES, total - first);
    for (int i = 0; i < count; i++) {
      int row = rows.first + (first + i) / shared, h = head * shared + (first + i) % shared;
      queries[i] = {row_of(machine, op.sources[0], row) + h * depth, held_by(step, row), {scratch + i * size, depth}};
      Part(wholes + i * size, depth).clear(depth);
    }
    for (int span = 0; span < spans_of(queries[count - 1].held); span++) {
      attend_span(machine, op, slot, head, queries, count, span);
      for (int i = 0; i < count; i++) {
        Part whole(wholes + i * size, depth);
        if (span < spans_of(queries[i].held)) merge(whole, queries[i].part, depth);
      }
    }
    for (int i = 0; i < count; i++) {
      int row = rows.first + (first + i) / shared, h = head * shared + (first + i) % shared;
      finish({wholes + i * size, depth}, depth, target_row(machine, op, row) + h * depth);
    }
  }
}

// Into how many jobs the keys are split: more than one where there are too few tokens for all threads.
INLINE int splits_of(const Machine& machine, const Step& step, const Op& op) {
  return (int64_t)step.num_tokens * op.sizes[1] < machine.num_threads * SPLIT_BELOW ? spans_of(step.longest) : 1;
}

// One job is a KV head and a token; those of one sequence that follow each other are done together.
void attend(const Machine& machine, const Step& step, const Op& op, Range jobs, float* scratch) {
  for (int job = jobs.first, taken; job < jobs.last; job += taken) {
    int head = job / step.num_tokens, row = job % step.num_tokens, owner = step.owners[row];
    int end = step.starts[owner] + step.sequences[owner].count;
    taken = least(jobs.last - job, end - row);
    attend_rows(machine, step, op, head, {row, row + taken}, scratch);
  }
}

// One job is a KV head, a token and a span of its keys.
void attend_parts(const Machine& machine, const Step& step, const Op& op, Range jobs) {
  int depth = op.sizes[2], shared = op.sizes[0] / op.sizes[1], splits = splits_of(machine, step, op);
  Query queries[ATTENTION_QUERIES];
  for (int job = jobs.first; job < jobs.last; job++) {
    int pair = job / splits, span = job % splits, head = pair / step.num_tokens, row = pair % step.num_tokens;
    int held = held_by(step, row), slot = step.sequences[step.owners[row]].slot;
    if (span >= spans_of(held)) continue;
    const float* q = row_of(machine, op.sources[0], row) + (int64_t)head * shared * depth;
    float* parts = machine.parts + (int64_t)job * shared * part_elements(depth);
    for (int first = 0; first < shared; first += ATTENTION_QUERIES) {
      int count = least(ATTENTION_QUERIES, shared - first);
      for (int i = 0; i < count; i++)
        queries[i] = {q + (first + i) * depth, held, {parts + (first + i) * part_elements(depth), depth}};
      attend_span(machine, op, slot, head, queries, count, span);
    }
  }
}

// One job is a KV head and a token: its spans are merged.
void merge_parts(const Machine& machine, const Step& step, const Op& op, Range jobs, float* scratch) {
  int depth = op.sizes[2], shared = op.sizes[0] / op.sizes[1], splits = splits_of(machine, step, op);
  for (int job = jobs.first; job < jobs.last; job++) {
    int head = job / step.num_tokens, row = job % step.num_tokens;
    for (int h = 0; h < shared; h++) {
      Part whole(scratch, depth);
      whole.clear(depth);
      for (int span = 0; span < spans_of(held_by(step, row)); span++) {
        int64_t place = ((int64_t)job * splits + span) * shared + h;
        merge(whole, {machine.parts + place * part_elements(depth), depth}, depth);
      }
      finish(whole, depth, target_row(machine, op, row) + (head * shared + h) * depth);
    }
  }
}

}  // namespace
