// From logits to weights: a row in blocks, penalties, biases and masks, e^x, sums.
#pragma once

#include <float.h>
#include "lanes.h"

namespace {

constexpr float FAR = -32.f;  // 131,072 weights of e^-32 are less than an ulp of the greatest

INLINE double greatest_of(const float* scores) {
  Vec most[2] = {splat(-INFINITY), splat(-INFINITY)};
  for (int i = 0; i < BLOCK; i += 2 * LANES)
    UNROLL for (int j = 0; j < 2; j++) most[j] = max(load(scores + i + j * LANES), most[j]);
  return greatest(max(most[0], most[1]));
}

// A register's part of a test that finds NaN and infinity in any of its values.
struct Faults {
  Vec sums[2] = {splat(0), splat(0)};
  __attribute__((always_inline)) void add(int part, Vec v) { sums[part] += v * 0.f; }
  bool any() const {
    for (int i = 0; i < LANES; i++)
      if (sums[0][i] != 0 || sums[1][i] != 0) return true;
    return false;
  }
};
bool has_fault(const Row& row) {  // in the last block, which is filled up by infinities
  for (int64_t i = row.size / BLOCK * BLOCK; i < row.size; i++)
    if (!(row.scores[i] * 0.f == 0.f)) return true;
  return false;
}

// The greatest of each block's scores, which `change` makes of the logits from place `at` on; false if a
// logit is not finite.
template <typename Change>
bool survey(const Row& row, double* most, Change change) {
  if (has_fault(row)) return false;
  Faults faults;
  for (int b = 0; b < row.blocks(); b++) {
    const float* scores = row.block(b);
    bool is_whole = (b + 1ll) * BLOCK <= row.size;
    Vec found[2] = {splat(-INFINITY), splat(-INFINITY)};
    for (int i = 0; i < BLOCK; i += 2 * LANES) {
      UNROLL for (int j = 0; j < 2; j++) {
        Vec v = load(scores + i + j * LANES);
        if (is_whole) faults.add(j, v);
        found[j] = max(change((int64_t)b * BLOCK + i + j * LANES, v), found[j]);
      }
    }
    most[b] = greatest(max(found[0], found[1]));
  }
  return !faults.any();
}
bool survey(const Row& row, double* most) {
  return survey(row, most, [](int64_t, Vec v) { return v; });
}

float finite(double value) {
  return (float)(value > FLT_MAX ? FLT_MAX : value < -FLT_MAX ? -FLT_MAX : value);
}

// The row's scores with penalties and biases, minus infinity where `allowed` has no token, and their
// greatest ones; false if a logit is not finite.
bool edit(const Row& row, const Draw& draw, const uint8_t* allowed, const Bench& bench) {
  float* edited = bench.edited;
  Vec factor = splat(finite(draw.repetition)), low = splat(-FLT_MAX), high = splat(FLT_MAX);
  bool is_finite = survey(row, bench.most, [&](int64_t at, Vec v) {
    if (draw.seen && has_any_at(draw.seen, at))
      v = bits_at(draw.seen, (int)at) ? max(min(v > 0 ? v / factor : v * factor, high), low) : v;
    if (allowed) v = bits_at(allowed, (int)at) ? v : splat(-INFINITY);
    store(edited + at, v);
    return v;
  });
  if (!is_finite) return false;
  auto add = [&](int64_t token, double change) {
    if (edited[token] == -INFINITY) return;
    edited[token] = finite(edited[token] + change);
    bench.most[token / BLOCK] = NAN;  // to be found again
  };
  for (int i = 0; i < draw.num_counted; i++)
    add(draw.counted[i], -(draw.presence + draw.frequency * draw.counts[i]));
  for (int i = 0; i < draw.num_biased; i++) add(draw.biased[i], draw.biases[i]);
  for (int b = 0; b < row.blocks(); b++)
    if (bench.most[b] != bench.most[b]) bench.most[b] = greatest_of(edited + (int64_t)b * BLOCK);
  return true;
}

// e^x for x from FAR to 0, any bits below; relative error about 1e-7, and e^0 is 1. The polynomial is
// vector.h's, in pairs of terms that do not wait for each other.
INLINE Vec decay(Vec x) {
  Vec n = round_even(x * 1.44269504f), r = x - n * 0.693359375f + n * 2.12194440e-4f, squared = r * r;
  Vec high = r * 1.9875691500e-4f + 1.3981999507e-3f, middle = r * 8.3334519073e-3f + 4.1665795894e-2f;
  Vec low = r * 1.6666665459e-1f + 5.0000001201e-1f;
  Vec power = ((high * squared + middle) * squared + low) * squared + (r + 1.f);
  IntVec scale = (__builtin_convertvector(n, IntVec) + 127) << 23;
  return power * (Vec)scale;
}

// The weights of a block's tokens, into `weights`, the greatest into `most`; returns their sum.
double weigh_block(const float* scores, float best, float inverse, float* weights, double* most) {
  Sums sums;
  Vec greatest_weight = splat(0);
  for (int i = 0; i < BLOCK; i += SUMS) {
    UNROLL for (int j = 0; j < Sums::PARTS; j++) {
      Vec exponent = (load(scores + i + j * LANES) - best) * inverse;
      Vec weight = exponent < FAR ? splat(0) : decay(exponent);
      store(weights + i + j * LANES, weight);
      greatest_weight = max(weight, greatest_weight);
      sums.add(j, weight);
    }
  }
  *most = greatest(greatest_weight);
  return sums.total();
}

// By block the sum of its weights and the greatest one, into `sums` and `most`, if its scores reach
// `least`; the weights themselves are kept for blocks that reach `kept`. Returns the sum of all.
double weigh(const Row& row, double best, double least, double kept, float inverse, const Bench& bench) {
  float passing[BLOCK];
  double total = 0;
  for (int b = 0; b < row.blocks(); b++) {
    if (bench.most[b] < least) {
      bench.most[b] = bench.sums[b] = 0;
      continue;
    }
    float* weights = bench.most[b] < kept ? passing : bench.weights + (int64_t)b * BLOCK;
    bench.sums[b] = weigh_block(row.block(b), (float)best, inverse, weights, &bench.most[b]);
    total += bench.sums[b];
  }
  return total;
}

}  // namespace
