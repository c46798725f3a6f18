// Queries of one KV head and a block of its keys and values: a few at once, in registers.
//
// What is computed for a query, and in which order, depends on its position alone: blocks begin at
// multiples of KEY_BLOCK, a dot product is summed by lanes and then across them, values are added key
// after key. So its result is the same bits in any company.
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

}  // namespace
