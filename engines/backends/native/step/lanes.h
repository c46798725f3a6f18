// What sampling needs of a register: bits as masks, greatest values, sums of 16 lanes; and small sorts.
#pragma once

#include "vector.h"
#include "sampling.h"

namespace {
using namespace nemotrt;

constexpr int BLOCK = SAMPLING_BLOCK;
constexpr int SUMS = 16;

INLINE IntVec bits_at(const uint8_t* bits, int at) {  // of the 32 that begin there
  int32_t word;
  memcpy(&word, bits, sizeof word);
  IntVec lane;
  for (int i = 0; i < LANES; i++) lane[i] = 1u << (at + i);
  return ((IntVec{} + word) & lane) != 0;
}
INLINE bool has_any_at(const uint8_t* bits, int64_t at) {
  return bits[at / 8] || (LANES == 16 && bits[at / 8 + 1]);
}
INLINE bool is_none(IntVec mask) {
#if defined(__AVX512VNNI__)
  return !_mm512_test_epi32_mask((__m512i)mask, (__m512i)mask);
#elif defined(__AVX2__)
  return _mm256_testz_si256((__m256i)mask, (__m256i)mask);
#elif defined(__ARM_FEATURE_DOTPROD)
  return !vmaxvq_u32((uint32x4_t)mask);
#else
  int32_t any = 0;
  for (int i = 0; i < LANES; i++) any |= mask[i];
  return !any;
#endif
}
enum Share { NONE, SOME, ALL };
INLINE Share share_of(const uint8_t* bits) {  // of a block's bits, which are set
  uint64_t words[BLOCK / 64], any = 0, all = ~0ull;
  memcpy(words, bits, sizeof words);
  for (uint64_t word : words) {
    any |= word;
    all &= word;
  }
  return !any ? NONE : ~all ? SOME : ALL;
}
INLINE int64_t lesser(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE double greater(double a, double b) { return a > b ? a : b; }
INLINE double greatest(Vec v) {
  float most = v[0];
  for (int i = 1; i < LANES; i++) most = v[i] > most ? v[i] : most;
  return most;
}

double greatest(const double* values, int count) {
  double most = values[0];
  for (int i = 1; i < count; i++) most = greater(most, values[i]);
  return most;
}

// The standard library's templates would be shared with units of other instruction sets: not here.
template <typename Before>
void sort(int32_t* items, int64_t count, Before stands_before) {
  constexpr int64_t GAPS[] = {8861, 3938, 1750, 701, 301, 132, 57, 23, 10, 4, 1};
  for (int64_t gap : GAPS)
    for (int64_t i = gap; i < count; i++) {
      int32_t item = items[i];
      int64_t j = i;
      for (; j >= gap && stands_before(item, items[j - gap]); j -= gap) items[j] = items[j - gap];
      items[j] = item;
    }
}

// The value that `rank` (from 1) of the values reach; `copy` has room for them.
double reached_by(int64_t rank, const double* values, int count, double* copy) {
  memcpy(copy, values, count * sizeof *copy);
  int64_t first = 0, last = count - 1, at = rank - 1;
  while (first < last) {
    double pivot = copy[first + (last - first) / 2];
    int64_t i = first, j = last;
    while (i <= j) {
      while (copy[i] > pivot) i++;
      while (copy[j] < pivot) j--;
      if (i > j) break;
      double value = copy[i];
      copy[i++] = copy[j];
      copy[j--] = value;
    }
    if (at <= j) last = j;
    else if (at >= i) first = i;
    else break;
  }
  return copy[at];
}

// Sums of 16 lanes, the same ones whatever a register holds, added up in one order.
typedef double Half __attribute__((vector_size(REGISTER_BYTES)));
#if defined(__AVX512VNNI__)
INLINE Half lower(Vec v) { return (Half)_mm512_cvtps_pd(_mm512_castps512_ps256((__m512)v)); }
INLINE Half upper(Vec v) { return (Half)_mm512_cvtps_pd(_mm512_extractf32x8_ps((__m512)v, 1)); }
#elif defined(__AVX2__)
INLINE Half lower(Vec v) { return (Half)_mm256_cvtps_pd(_mm256_castps256_ps128((__m256)v)); }
INLINE Half upper(Vec v) { return (Half)_mm256_cvtps_pd(_mm256_extractf128_ps((__m256)v, 1)); }
#elif defined(__ARM_FEATURE_DOTPROD)
INLINE Half lower(Vec v) { return (Half)vcvt_f64_f32(vget_low_f32((float32x4_t)v)); }
INLINE Half upper(Vec v) { return (Half)vcvt_high_f64_f32((float32x4_t)v); }
#else
INLINE Half lower(Vec v) { return Half{v[0], v[1], v[2], v[3]}; }
INLINE Half upper(Vec v) { return Half{v[4], v[5], v[6], v[7]}; }
#endif
struct Sums {
  static constexpr int PARTS = SUMS / LANES;
  Half parts[2 * PARTS] = {};
  __attribute__((always_inline)) void add(int part, Vec v) {
    parts[2 * part] += lower(v);
    parts[2 * part + 1] += upper(v);
  }
  double total() const {
    double lanes[SUMS];
    memcpy(lanes, parts, sizeof lanes);
    UNROLL for (int half = SUMS / 2; half; half /= 2)
      for (int i = 0; i < half; i++) lanes[i] += lanes[i + half];
    return lanes[0];
  }
};

// A row of scores in blocks; its last block may lie elsewhere, filled up with minus infinity.
struct Row {
  const float* scores;
  const float* tail;
  int64_t size;
  int blocks() const { return (int)((size + BLOCK - 1) / BLOCK); }
  const float* block(int b) const { return (b + 1ll) * BLOCK <= size ? scores + (int64_t)b * BLOCK : tail; }
};

// A row of scores: of each block the place, and bits in whole blocks of the tokens that may come,
// nullptr for all.
struct Scores {
  const float** places;
  const uint8_t* allowed;
  Share share(int b) const { return allowed ? share_of(allowed + b * (BLOCK / 8)) : ALL; }
  // A block, in `room` with minus infinity where a token may not come, or where it is if all may.
  const float* block(int b, float* room) const {
    if (share(b) == ALL) return places[b];
    const float* scores = places[b];
    const uint8_t* bits = allowed + b * (BLOCK / 8);
    for (int i = 0; i < BLOCK; i += 32)
      UNROLL for (int j = 0; j < 32; j += LANES)
        store(room + i + j, bits_at(bits + i / 8, j) ? load(scores + i + j) : splat(-INFINITY));
    return room;
  }
};

// What is kept of the order of weights: those above `weight`, and of its equals those up to `index`.
struct Cut {
  float weight;
  int64_t index;
  bool keeps(float w, int64_t i) const { return w > weight || (w == weight && i <= index); }
};
constexpr Cut EVERYTHING = {0, -1};
Cut shorter(Cut a, Cut b) {
  if (a.weight != b.weight) return a.weight > b.weight ? a : b;
  return a.index < b.index ? a : b;
}

struct Measure {
  double mass;
  int64_t count;
};

}  // namespace
