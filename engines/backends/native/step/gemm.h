// Linears as outer products: a panel of 16 weight rows times a group of tokens. Of few tokens, several
// panels at once: sums that do not wait for each other, and weights that come in several streams.
//
// The order in which a token's sums are formed depends on nothing but the weight's depth, so a
// token's result is the same bits in any batch.
#pragma once

#include <type_traits>
#include <utility>

#include "int4.h"
#include "rows.h"

namespace {

// The inputs of a row whose weights lie side by side: bf16 in pairs, which matrix units read as they are.
template <typename W> constexpr int SIDE_BY_SIDE = 1;
template <> constexpr int SIDE_BY_SIDE<uint16_t> = 2;

// The weights of one input of a panel, the `i`th of those that lie side by side.
INLINE void load_weights(const float* w, int, Vec (&rows)[VECTORS]) {
  UNROLL for (int v = 0; v < VECTORS; v++) rows[v] = load(w + v * LANES);
}
INLINE void load_weights(const uint16_t* w, int i, Vec (&rows)[VECTORS]) {
  UNROLL for (int v = 0; v < VECTORS; v++) {
    IntVec pairs;
    memcpy(&pairs, w + 2 * v * LANES, sizeof pairs);
    rows[v] = (Vec)(i == 0 ? pairs << 16 : pairs & (int)0xffff0000);
  }
}

// E4M3 codes; the values are 2^-8 of what they stand for, which float_tile makes good.
struct Float8 {
  uint8_t code;
};
constexpr float FLOAT8_FACTOR = 256;

INLINE void load_weights(const Float8* w, int, Vec (&rows)[VECTORS]) {
#if defined(__AVX2__)
  // As half floats: sign, one exponent bit less, the same exponent and fraction further up.
  __m128i codes = _mm_loadu_si128((const __m128i*)w);
  __m256i words = _mm256_slli_epi16(_mm256_cvtepu8_epi16(codes), 8);
  __m256i halves = _mm256_and_si256(_mm256_srai_epi16(words, 1), _mm256_set1_epi16((short)0xbfff));
#if defined(__AVX512VNNI__)
  rows[0] = (Vec)_mm512_cvtph_ps(halves);
#else
  rows[0] = (Vec)_mm256_cvtph_ps(_mm256_castsi256_si128(halves));
  rows[1] = (Vec)_mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1));
#endif
#elif defined(__ARM_FEATURE_DOTPROD)
  uint8x16_t codes = vld1q_u8((const uint8_t*)w);  // as half floats, likewise
  UNROLL for (int v = 0; v < VECTORS; v++) {
    uint8x8_t eight = v < 2 ? vget_low_u8(codes) : vget_high_u8(codes);
    int16x8_t shifted = vshrq_n_s16(vreinterpretq_s16_u16(vshll_n_u8(eight, 8)), 1);
    float16x8_t halves = vreinterpretq_f16_s16(vandq_s16(shifted, vdupq_n_s16((int16_t)0xbfff)));
    rows[v] = (Vec)vcvt_f32_f16(v % 2 ? vget_high_f16(halves) : vget_low_f16(halves));
  }
#else
  float values[PANEL];
  for (int r = 0; r < PANEL; r++) {
    uint32_t bits = (uint32_t)(w[r].code & 0x80) << 24 | (uint32_t)(w[r].code & 0x7f) << 20;
    memcpy(values + r, &bits, sizeof bits);
    values[r] *= 0x1p112f;
  }
  memcpy(rows, values, sizeof values);
#endif
}

// noinline and the unrolled loops keep the accumulators in registers (gcc -O3 spills them else).
template <typename W, int T, int P>
__attribute__((noinline)) void float_tile(const Tile& tile) {
  const W* w = (const W*)tile.weight;
  const float* x = (const float*)tile.operand;
  Vec sums[P][T][VECTORS];
  UNROLL for (int p = 0; p < P; p++) UNROLL for (int t = 0; t < T; t++)
    UNROLL for (int v = 0; v < VECTORS; v++) sums[p][t][v] = splat(0);
  Ahead ahead = ahead_of<P>(tile, (int64_t)tile.depth * PANEL * sizeof(W));
  constexpr int SIDE = SIDE_BY_SIDE<W>;
  for (int k = 0; k < tile.depth; k += SIDE, w += SIDE * PANEL, x += SIDE * T) {
    int64_t next = distance(ahead, w);
    UNROLL for (int p = 0; p < P; p++) __builtin_prefetch((const char*)panel_of(w, tile, p) + next);
    UNROLL for (int i = 0; i < SIDE; i++) {
      Vec rows[P][VECTORS];
      UNROLL for (int p = 0; p < P; p++) load_weights(panel_of(w, tile, p), i, rows[p]);
      UNROLL for (int t = 0; t < T; t++) {
        Vec input = splat(x[i * T + t]);
        if (P > 1) PIN(input);  // loaded once for all panels
        UNROLL for (int p = 0; p < P; p++) UNROLL for (int v = 0; v < VECTORS; v++) {
          sums[p][t][v] = rows[p][v] * input + sums[p][t][v];
          PIN(sums[p][t][v]);
        }
      }
    }
  }
  constexpr bool HAS_SCALE = std::is_same_v<W, Float8>;
  UNROLL for (int p = 0; p < P; p++) UNROLL for (int t = 0; t < T; t++)
    UNROLL for (int v = 0; v < VECTORS; v++) {
      int row = p * PANEL + v * LANES;
      Vec sum = sums[p][t][v];
      if (HAS_SCALE) sum *= load(tile.row_scales + row) * FLOAT8_FACTOR;
      put(tile.out + t * tile.stride + row, sum, tile.adds);
    }
}

#if defined(__AVX2__)
// sums += products of a pair of inputs with 16 pairs of weights, or with 8 of them.
INLINE void add_products(IntVec& sums, IntVec weights, IntVec inputs) {
#if defined(__AVX512VNNI__)
  sums = (IntVec)_mm512_dpwssd_epi32((__m512i)sums, (__m512i)weights, (__m512i)inputs);
#else
  __m256i products = _mm256_madd_epi16((__m256i)weights, (__m256i)inputs);
  sums = (IntVec)_mm256_add_epi32((__m256i)sums, products);
#endif
}
INLINE IntVec load_codes(const int8_t* w) {
#if defined(__AVX512VNNI__)
  return (IntVec)_mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i*)w));
#else
  return (IntVec)_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)w));
#endif
}

template <int T, int P>
INLINE void int8_sums(const Tile& tile, IntVec (&sums)[P][T][VECTORS]) {
  const int8_t* w = (const int8_t*)tile.weight;
  const int32_t* x = (const int32_t*)tile.operand;  // pairs of int16
  UNROLL for (int p = 0; p < P; p++) UNROLL for (int t = 0; t < T; t++)
    UNROLL for (int v = 0; v < VECTORS; v++) sums[p][t][v] = (IntVec)splat(0);
  Ahead ahead = ahead_of<P>(tile, (int64_t)tile.depth * PANEL);
  for (int k = 0; k < tile.depth; k += 2, w += 2 * PANEL, x += T) {
    int64_t next = distance(ahead, w);
    IntVec rows[P][VECTORS];
    UNROLL for (int p = 0; p < P; p++) {
      const int8_t* panel = panel_of(w, tile, p);
      __builtin_prefetch((const char*)panel + next);
      UNROLL for (int v = 0; v < VECTORS; v++) rows[p][v] = load_codes(panel + 2 * LANES * v);
    }
    UNROLL for (int t = 0; t < T; t++) {
      int32_t pair;
      memcpy(&pair, x + t, sizeof pair);
      IntVec inputs = pair - IntVec{};
      PIN(inputs);
      UNROLL for (int p = 0; p < P; p++) UNROLL for (int v = 0; v < VECTORS; v++) {
        add_products(sums[p][t][v], rows[p][v], inputs);
        PIN(sums[p][t][v]);
      }
    }
  }
}
#elif !defined(__ARM_FEATURE_DOTPROD)  // which has them in neon.h
template <int T, int P>
INLINE void int8_sums(const Tile& tile, IntVec (&result)[P][T][VECTORS]) {
  for (int p = 0; p < P; p++) {
    const int8_t* w = panel_of((const int8_t*)tile.weight, tile, p);
    const int16_t* x = (const int16_t*)tile.operand;
    int32_t sums[T][PANEL] = {};
    for (int k = 0; k < tile.depth; k += 2, w += 2 * PANEL, x += 2 * T)
      for (int t = 0; t < T; t++)
        for (int r = 0; r < PANEL; r++)
          sums[t][r] += w[2 * r] * x[2 * t] + w[2 * r + 1] * x[2 * t + 1];
    memcpy(result[p], sums, sizeof sums);
  }
}
#endif

template <int T, int P>
__attribute__((noinline)) void int8_tile(const Tile& tile) {
  IntVec sums[P][T][VECTORS];
  int8_sums<T, P>(tile, sums);
  UNROLL for (int p = 0; p < P; p++) UNROLL for (int t = 0; t < T; t++) {
    float scale = tile.token_scales[t * tile.token_scale_stride];
    UNROLL for (int v = 0; v < VECTORS; v++) {
      int row = p * PANEL + v * LANES;
      Vec product = __builtin_convertvector(sums[p][t][v], Vec);
      put(tile.out + t * tile.stride + row, load(tile.row_scales + row) * scale * product, tile.adds);
    }
  }
}

using TileRun = void (*)(const Tile&);

// The tiles for 1 to GROUP tokens, of one panel and of panels_at_once(). No std::array: its functions
// would be shared between instruction sets.
struct Tiles {
  TileRun one[GROUP], several[GROUP];
};
template <template <int, int> class Run, int... T>
constexpr Tiles tiles(std::integer_sequence<int, T...>) {
  return {{Run<T + 1, 1>::tile...}, {Run<T + 1, panels_at_once(T + 1)>::tile...}};
}
template <int T, int P> struct FloatRun { static constexpr TileRun tile = float_tile<float, T, P>; };
template <int T, int P> struct Bf16Run { static constexpr TileRun tile = float_tile<uint16_t, T, P>; };
template <int T, int P> struct Float8Run { static constexpr TileRun tile = float_tile<Float8, T, P>; };
template <int T, int P> struct Int8Run { static constexpr TileRun tile = int8_tile<T, P>; };
template <int T, int P> struct Int4Run { static constexpr TileRun tile = int4_tile<T, P>; };
using Tokens = std::make_integer_sequence<int, GROUP>;
constexpr Tiles FLOAT_TILES = tiles<FloatRun>(Tokens()), BF16_TILES = tiles<Bf16Run>(Tokens()),
                FLOAT8_TILES = tiles<Float8Run>(Tokens()), INT8_TILES = tiles<Int8Run>(Tokens()),
                INT4_TILES = tiles<Int4Run>(Tokens());

INLINE const Tiles& tiles_of(int kind) {
  switch (kind) {
    case PANELS_FLOAT: return FLOAT_TILES;
    case PANELS_BF16: return BF16_TILES;
    case PANELS_FLOAT8: return FLOAT8_TILES;
    case PANELS_INT4: return INT4_TILES;
    default: return INT8_TILES;
  }
}
// A token group's block of inputs in the operand of a weight of this kind.
INLINE const void* operand_at(const Buffer& operand, int kind, int64_t element) {
  switch (kind) {
    case PANELS_INT8: return operand.codes + element;
    case PANELS_INT4: return operand.cells + element / CELL * CELL_WORDS;
    default: return operand.rows + element;
  }
}

constexpr int CACHED_BYTES = 160 * 1024;  // of weights that stay in L2 while the tokens pass

INLINE int panels_of(const Machine& machine, const Op& op) {
  return (machine.tensors[op.tensors[0]].rows + PANEL - 1) / PANEL;
}

// target (+)= operand x weight^T over some panels of the weight.
void linear(const Machine& machine, const Op& op, int rows, Range panels) {
  const Tensor& weight = machine.tensors[op.tensors[0]];
  const Buffer &operand = machine.buffers[op.sources[0].buffer],
               &target = machine.buffers[op.target.buffer];
  bool is_int8 = weight.kind == PANELS_INT8, has_scale = is_int8 || weight.kind >= PANELS_FLOAT8;
  const float* scales = has_scale ? values(machine, op.tensors[1]) : nullptr;
  int64_t scale_step = has_scale && machine.tensors[op.tensors[1]].rows > 1 ? round_up(weight.rows, PANEL) : 0;
  const Tiles& runs = tiles_of(weight.kind);
  int depth = (int)depth_of(weight.kind, weight.columns);
  int64_t panel_bytes = bytes_of(weight.kind, (int64_t)PANEL * depth);
  int blocks = blocks_of(depth), groups = groups_of(rows);
  float* out = target.rows + op.target.column;
  for (int b = 0; b < blocks; b++) {
    int start = b * DEPTH_BLOCK, size = least(DEPTH_BLOCK, depth - start);
    int step = groups == 1 ? panels.last : most(2, CACHED_BYTES / (int)bytes_of(weight.kind, PANEL * size));
    for (int first = panels.first; first < panels.last; first += step) {
      int last = least(panels.last, first + step);
      for (int group = 0; group < groups; group++) {
        int row = first_of(group, rows), tokens = first_of(group + 1, rows) - row;
        int64_t place = (int64_t)row * depth + (int64_t)start * tokens;
        const void* x = operand_at(operand, weight.kind, place);
        const float* token_scales = is_int8 ? operand.scales + (int64_t)row * blocks + b : nullptr;
        int several = panels_at_once(tokens);
        for (int p = first, taken; p < last; p += taken) {
          taken = last - p >= several ? several : 1;
          const char* panel = (const char*)weight.data + p * panel_bytes + bytes_of(weight.kind, start * PANEL);
          TileRun run = taken > 1 ? runs.several[tokens - 1] : runs.one[tokens - 1];
          run({panel, x, size, panel_bytes,
               scales ? scales + b * scale_step + p * PANEL : nullptr, token_scales, blocks,
               out + (int64_t)row * target.stride + p * PANEL, target.stride, op.sizes[0] != 0 || b > 0});
        }
      }
    }
  }
}

}  // namespace
