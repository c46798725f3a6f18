// Queries of one KV head and a block of its keys and values, as products of matrices.
//
// Keys and values of a block are packed into panels once, for all queries that pass. What is computed
// for a query, and in which order, depends on its position alone: blocks begin at multiples of
// KEY_BLOCK, a dot product is one chain along the depth, the weighed values of a block are one chain
// along its keys. So its result is the same bits in any company.
#pragma once

#include "cache_rows.h"
#include "gemm.h"

namespace {

static_assert(SPAN % KEY_BLOCK == 0 && KEY_BLOCK % PANEL == 0, "a block of keys belongs to one span");
constexpr int64_t VALUE_PANEL = (KEY_BLOCK + 1) * PANEL;  // a line more than it fills: else all fall on one place of a cache
constexpr float LOG2_E = 1.44269504f;  // scores are binary logarithms of weights

// A softmax over some keys.
struct Part {
  float *values, *softmax;  // the weighed sums of values; the greatest score, the sum of weights
  Part(float* at, int depth) : values(at), softmax(at + round_up(depth, PANEL)) {}
  void clear(int depth) {
    memset(values, 0, round_up(depth, PANEL) * sizeof(float));
    softmax[0] = -1e30f, softmax[1] = 0;
  }
};

// A thread's memory, and the queries that it holds: those of one sequence and KV head, token by token.
struct Queries {
  int count, depth;
  int held[ATTENTION_QUERIES];  // keys that each sees
  float *rows;                  // as an operand: in groups, interleaved
  float *scores, *keys, *vals;  // a score for each query and key; panels of a block
  float *plain;                 // rows of a block in float32, where the cache has others
  float *parts, *wholes;        // softmaxes of a span and of all keys, one for each query

  Queries(float* memory, int depth) : count(0), depth(depth) {
    int64_t width = round_up(depth, PANEL);
    rows = memory;
    scores = rows + ATTENTION_QUERIES * width;
    keys = scores + ATTENTION_QUERIES * KEY_BLOCK;
    vals = keys + KEY_BLOCK * width;
    plain = vals + VALUE_PANEL * (width / PANEL);
    parts = plain + KEY_BLOCK * width;
    wholes = parts + ATTENTION_QUERIES * part_elements(depth);
  }
  Part part(int i) const { return {parts + i * part_elements(depth), depth}; }
  Part whole(int i) const { return {wholes + i * part_elements(depth), depth}; }

  // Puts a query into its place, once `count` is known.
  void put(int i, const float* q, int keys_seen) {
    int group = 0;
    while (first_of(group + 1, count) <= i) group++;
    int first = first_of(group, count), tokens = first_of(group + 1, count) - first;
    float scale = LOG2_E / sqrtf((float)depth), *out = rows + (int64_t)first * depth + (i - first);
    for (int k = 0; k < depth; k++) out[(int64_t)k * tokens] = q[k] * scale;
    held[i] = keys_seen;
  }
};

// Of each quarter of two registers, from place HALF on: one of each in turn, or two of each.
template <int HALF, int... I>
INLINE Vec zip(Vec a, Vec b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, (I / 4 * 4 + I % 4 / 2 + HALF + I % 2 * LANES)...);
}
template <int HALF, int... I>
INLINE Vec zip_pairs(Vec a, Vec b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, (I / 4 * 4 + I % 2 + HALF + I % 4 / 2 * LANES)...);
}
using Lanes = std::make_integer_sequence<int, LANES>;

// LANES columns of four rows become rows of a panel.
INLINE void turn(const float* const (&rows)[4], int column, float* out) {
  Vec a = load(rows[0] + column), b = load(rows[1] + column), c = load(rows[2] + column), d = load(rows[3] + column);
  Vec ab = zip<0>(a, b, Lanes()), cd = zip<0>(c, d, Lanes());
  Vec ab2 = zip<2>(a, b, Lanes()), cd2 = zip<2>(c, d, Lanes());
  Vec turned[4] = {zip_pairs<0>(ab, cd, Lanes()), zip_pairs<2>(ab, cd, Lanes()),
                   zip_pairs<0>(ab2, cd2, Lanes()), zip_pairs<2>(ab2, cd2, Lanes())};
  UNROLL for (int i = 0; i < 4; i++) {
    Quarter quarters[LANES / 4];
    memcpy(quarters, turned + i, sizeof quarters);
    UNROLL for (int q = 0; q < LANES / 4; q++) memcpy(out + (4 * q + i) * PANEL, quarters + q, sizeof(Quarter));
  }
}

// A single token waits for memory. So each half of the work on a block asks for a half of the next one:
// packing for the first, as much for each row.
INLINE void fetch_half(const char* next, int row, int64_t row_bytes) {
  for (int64_t at = 0; at < row_bytes / 2; at += 64) __builtin_prefetch(next + row * (row_bytes / 2) + at, 0, 2);
}

// Puts keys side by side: panels of [depth, PANEL]. Past the last key comes the last again.
__attribute__((noinline)) void pack_keys(const float* keys, int count, int depth, const Cache& next, float* out) {
  for (int key = 0; key < round_up(count, PANEL); key += 4) {
    const float* rows[4];
    for (int j = 0; j < 4; j++) rows[j] = keys + (int64_t)least(key + j, count - 1) * depth;
    float* panel = out + (int64_t)(key / PANEL) * PANEL * depth + key % PANEL;
    for (int j = 0; j < 4; j++) fetch_half(next.rows, key + j, next.row_bytes);
    int k = 0;
    for (; k + LANES <= depth; k += LANES) turn(rows, k, panel + (int64_t)k * PANEL);
    for (; k < depth; k++)
      for (int j = 0; j < 4; j++) panel[(int64_t)k * PANEL + j] = rows[j][k];
  }
}

// Cuts values into panels of columns, [KEY_BLOCK, PANEL] each.
__attribute__((noinline)) void pack_values(const float* vals, int count, int depth, const Cache& next, float* out) {
  for (int key = 0; key < count; key++) {
    fetch_half(next.rows, key, next.row_bytes);
    const float* row = vals + (int64_t)key * depth;
    for (int k = 0; k < depth; k += LANES)
      store(out + k / PANEL * VALUE_PANEL + key * PANEL + k % PANEL, load(row + k, depth - k));
  }
}

// Some rows times panels. Meanwhile half a line of `next` is asked for with each line of a panel.
struct Product {
  const float *panels, *rows;
  const char* next;
  int depth;
  int64_t panel_elements, line, stride;  // from a panel to the next, from a line of it to the next; between
                                         // two rows of the output
  float* out;
};

// T rows times P panels. Rows are interleaved (WEIGHS is false) and the output is written, or they are
// weights, KEY_BLOCK apart, and the output is added to.
template <int T, int P, bool WEIGHS>
__attribute__((noinline)) void product_tile(const Product& product) {
  const float *w = product.panels, *x = product.rows;
  const char* next = product.next;
  Vec sums[P][T][VECTORS];
  UNROLL for (int p = 0; p < P; p++) UNROLL for (int t = 0; t < T; t++)
    UNROLL for (int v = 0; v < VECTORS; v++) sums[p][t][v] = splat(0);
  for (int k = 0; k < product.depth; k++, w += product.line, next += 32 * P) {
    Vec rows[P][VECTORS];
    UNROLL for (int p = 0; p < P; p++) {
      __builtin_prefetch(next + 32 * p, 0, 2);
      load_weights(w + p * product.panel_elements, 0, rows[p]);
    }
    UNROLL for (int t = 0; t < T; t++) {
      Vec input = splat(WEIGHS ? x[t * KEY_BLOCK + k] : x[k * T + t]);
      if (P > 1) PIN(input);  // loaded once for all panels
      UNROLL for (int p = 0; p < P; p++) UNROLL for (int v = 0; v < VECTORS; v++) {
        sums[p][t][v] = rows[p][v] * input + sums[p][t][v];
        PIN(sums[p][t][v]);
      }
    }
  }
  UNROLL for (int p = 0; p < P; p++) UNROLL for (int t = 0; t < T; t++)
    UNROLL for (int v = 0; v < VECTORS; v++) {
      float* out = product.out + t * product.stride + p * PANEL + v * LANES;
      store(out, WEIGHS ? load(out) + sums[p][t][v] : sums[p][t][v]);
    }
}

using ProductRun = void (*)(const Product&);
struct ProductTiles {  // as Tiles
  ProductRun one[GROUP], several[GROUP];
};
template <bool WEIGHS, int... T>
constexpr ProductTiles product_tiles(std::integer_sequence<int, T...>) {
  return {{product_tile<T + 1, 1, WEIGHS>...}, {product_tile<T + 1, panels_at_once(T + 1), WEIGHS>...}};
}
template <bool WEIGHS>
constexpr ProductTiles PRODUCT_TILES = product_tiles<WEIGHS>(Tokens());

// `whole` with all rows and panels; `step` lies between two rows of its input.
template <bool WEIGHS>
void multiply(const Product& whole, int rows, int panels, int64_t step) {
  int groups = groups_of(rows), most_panels = panels_at_once((rows + groups - 1) / groups);
  for (int p = 0; p < panels; p += most_panels)
    for (int group = 0; group < groups; group++) {
      int row = first_of(group, rows), tokens = first_of(group + 1, rows) - row;
      int end = least(panels, p + most_panels), several = panels_at_once(tokens);
      for (int i = p, taken; i < end; i += taken) {
        taken = end - i >= several ? several : 1;
        Product part = whole;
        part.panels += i * whole.panel_elements;
        part.rows += row * step;
        part.next = group ? (const char*)part.panels : whole.next + (int64_t)i * 32 * whole.depth;
        part.out += row * whole.stride + i * PANEL;
        const ProductTiles& tiles = PRODUCT_TILES<WEIGHS>;
        (taken > 1 ? tiles.several : tiles.one)[tokens - 1](part);
      }
    }
}

// 2^x for x up to 0, relative error about 2e-7. Source: the Cephes library's exp2f polynomial.
INLINE Vec power_of_two(Vec x) {
  x = max(x, splat(-125.f));
  Vec shifted = x + 12582912.f, r = x - (shifted - 12582912.f);
  Vec p = splat(1.535336188e-4f);
  p = p * r + 1.339887440e-3f;
  p = p * r + 9.618437357e-3f;
  p = p * r + 5.550332471e-2f;
  p = p * r + 2.402264791e-1f;
  p = p * r + 6.931472028e-1f;
  p = p * r + 1.f;
  return (Vec)((IntVec)p + ((IntVec)shifted << 23));
}

// Makes a query's scores of a block weights, and counts them into its softmax. Not inlined, as merge():
// the compiler could fuse products in several ways.
__attribute__((noinline)) void weigh(float* scores, int count, int depth, const Part& part) {
  int end = (int)round_up(count, LANES);
  for (int j = count; j < end; j++) scores[j] = -INFINITY;
  Vec peaks = splat(part.softmax[0]), total = splat(0);
  for (int j = 0; j < end; j += LANES) peaks = max(load(scores + j), peaks);
  float peak = largest(peaks);
  if (peak > part.softmax[0]) {
    float factor = exp2f(part.softmax[0] - peak);
    part.softmax[0] = peak;
    part.softmax[1] *= factor;
    for (int k = 0; k < depth; k += LANES) store(part.values + k, load(part.values + k) * factor);
  }
  for (int j = 0; j < end; j += LANES) store(scores + j, power_of_two(load(scores + j) - peak));
  for (int j = count; j < end; j++) scores[j] = 0;
  for (int j = 0; j < end; j += LANES) total += load(scores + j);
  part.softmax[1] += sum(total);
}

__attribute__((noinline)) void merge(const Part& whole, const Part& part, int depth) {
  float peak = part.softmax[0] > whole.softmax[0] ? part.softmax[0] : whole.softmax[0];
  float before = exp2f(whole.softmax[0] - peak), factor = exp2f(part.softmax[0] - peak);
  whole.softmax[0] = peak;
  whole.softmax[1] = whole.softmax[1] * before + part.softmax[1] * factor;
  for (int k = 0; k < depth; k += LANES)
    store(whole.values + k, load(whole.values + k) * before + load(part.values + k) * factor);
}

// Takes all queries through the keys from `start` on, a block's at most.
void attend_block(const Queries& queries, const Cache& keys, const Cache& vals, int start) {
  int count = queries.count, depth = queries.depth, seen[ATTENTION_QUERIES];
  for (int i = 0; i < count; i++) seen[i] = most(0, least(KEY_BLOCK, queries.held[i] - start));
  int any = seen[count - 1], half = KEY_BLOCK / 2, groups = groups_of(count);
  Cache next_keys = keys.from(start + KEY_BLOCK), next_vals = vals.from(start + KEY_BLOCK);
  const float* key_rows = plain_rows(keys.from(start), any, depth, queries.plain);
  int together = PANEL * panels_at_once((count + groups - 1) / groups);
  for (int key = 0; key < any; key += together) {  // packed keys are used while they are near
    int taken = least(together, any - key);
    pack_keys(key_rows + (int64_t)key * depth, taken, depth, next_keys.from(key / 2), queries.keys);
    multiply<false>({queries.keys, queries.rows, next_keys.from(half + key / 2).rows, depth, (int64_t)PANEL * depth,
                     PANEL, KEY_BLOCK, queries.scores + key},
                    count, (taken + PANEL - 1) / PANEL, depth);
  }
  const float* rows = plain_rows(vals.from(start), any, depth, queries.plain);
  bool is_packed = count > GROUP || depth % PANEL;  // a single group reads the rows as they are
  if (is_packed) pack_values(rows, any, depth, next_vals, queries.vals);
  else for (int i = 0; i < any; i++) fetch_half(next_vals.rows, i, next_vals.row_bytes);
  for (int i = 0, end; i < count; i = end) {  // those that see the same keys of it
    for (end = i + 1; end < count && seen[end] == seen[i];) end++;
    if (!seen[i]) continue;
    for (int j = i; j < end; j++) weigh(queries.scores + j * KEY_BLOCK, seen[j], depth, queries.part(j));
    multiply<true>({is_packed ? queries.vals : rows, queries.scores + i * KEY_BLOCK, next_vals.from(half).rows,
                    seen[i], is_packed ? VALUE_PANEL : PANEL, is_packed ? PANEL : depth, part_elements(depth),
                    queries.part(i).values},
                   end - i, (depth + PANEL - 1) / PANEL, KEY_BLOCK);
  }
}

}  // namespace
