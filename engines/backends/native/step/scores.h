// From logits to weights: a row in blocks, penalties, biases and masks, e^x, sums.
#pragma once

#include <float.h>
#include "lanes.h"

namespace {

constexpr float FAR = -32.f;  // 131,072 weights of e^-32 are less than an ulp of the greatest

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

INLINE double greatest_of(const float* logits, Faults& faults) {
  Vec most[2] = {splat(-INFINITY), splat(-INFINITY)};
  for (int i = 0; i < BLOCK; i += 2 * LANES)
    UNROLL for (int j = 0; j < 2; j++) {
      Vec v = load(logits + i + j * LANES);
      faults.add(j, v);
      most[j] = max(v, most[j]);
    }
  return greatest(max(most[0], most[1]));
}
INLINE double greatest_of(const float* scores) {
  Vec most[2] = {splat(-INFINITY), splat(-INFINITY)};
  for (int i = 0; i < BLOCK; i += 2 * LANES)
    UNROLL for (int j = 0; j < 2; j++) most[j] = max(load(scores + i + j * LANES), most[j]);
  return greatest(max(most[0], most[1]));
}

// The greatest logit of each block, after which `look` is told of the block; false if a logit is not
// finite.
template <typename Look>
bool survey(const Row& row, const Bench& bench, Look look) {
  if (has_fault(row)) return false;
  Faults faults;
  int whole = (int)(row.size / BLOCK);
  for (int b = 0; b < whole; b++) {
    bench.raw_most[b] = greatest_of(row.scores + (int64_t)b * BLOCK, faults);
    look(b);
  }
  if (whole < row.blocks()) {
    bench.raw_most[whole] = greatest_of(row.tail);
    look(whole);
  }
  return !faults.any();
}

float finite(double value) {
  return (float)(value > FLT_MAX ? FLT_MAX : value < -FLT_MAX ? -FLT_MAX : value);
}

// A block's scores, to be changed; its greatest one is to be found again.
float* change(const Scores& scores, int64_t b, const Bench& bench) {
  float* changed = bench.changed + b * BLOCK;
  if (scores.places[b] != changed) memcpy(changed, scores.places[b], BLOCK * sizeof *changed);
  scores.places[b] = changed;
  bench.most[b] = NAN;
  return changed;
}

// A block's scores with the repetition penalty of the tokens that were seen, into `changed`.
void repeat(const float* logits, const uint8_t* seen, double repetition, float* changed) {
  Vec factor = splat(finite(repetition)), low = splat(-FLT_MAX), high = splat(FLT_MAX);
  for (int i = 0; i < BLOCK; i += 32)
    UNROLL for (int j = 0; j < 32; j += LANES) {
      Vec v = load(logits + i + j);
      if (has_any_at(seen, i + j))
        v = bits_at(seen + i / 8, j) ? max(min(v > 0 ? v / factor : v * factor, high), low) : v;
      store(changed + i + j, v);
    }
}

// Where a block's scores are, and the greatest that may come; of a block without any, neither is looked
// at again.
INLINE void place(const Row& row, const Draw& draw, const Scores& scores, int b, const Bench& bench) {
  float room[BLOCK], *changed = bench.changed + (int64_t)b * BLOCK;
  Share share = scores.share(b);
  const uint8_t* seen = draw.seen && share != NONE ? draw.seen + b * (BLOCK / 8) : nullptr;
  bool is_seen = seen && share_of(seen) != NONE;
  if (is_seen) repeat(row.block(b), seen, draw.repetition, changed);
  scores.places[b] = is_seen ? changed : row.block(b);
  bench.most[b] = share == NONE ? -INFINITY : bench.raw_most[b];
  if (is_seen || share == SOME) bench.most[b] = greatest_of(scores.block(b, room));
}

// The row's scores, and the greatest of each block that may come; false if a logit is not finite.
bool find(const Row& row, const Draw& draw, const Scores& scores, const Bench& bench) {
  if (!survey(row, bench, [&](int b) { place(row, draw, scores, b, bench); })) return false;
  auto add = [&](int64_t token, double value) {
    if (bench.most[token / BLOCK] == -INFINITY) return;
    float& score = change(scores, token / BLOCK, bench)[token % BLOCK];
    score = finite(score + value);
  };
  for (int i = 0; i < draw.num_counted; i++)
    add(draw.counted[i], -(draw.presence + draw.frequency * draw.counts[i]));
  for (int i = 0; i < draw.num_biased; i++) add(draw.biased[i], draw.biases[i]);
  float room[BLOCK];
  for (int b = 0; b < row.blocks(); b++)
    if (bench.most[b] != bench.most[b]) bench.most[b] = greatest_of(scores.block(b, room));
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

// e^x for x from 2 FAR to 0, with two terms less than decay(); relative error about 2e-7, and e^0 is 1.
// The polynomial is the best of those that begin with 1 + x, on [-ln 2 / 2, ln 2 / 2]: 1.05e-7.
INLINE Vec brief_decay(Vec x) {
  Vec shifted = x * 1.44269504f + 12582912.f, n = shifted - 12582912.f;  // nearest integer
  Vec r = x - n * 0.693359375f + n * 2.12194440e-4f, squared = r * r;
  Vec high = r * 8.31252e-3f + 4.189011e-2f, low = r * 1.6667114e-1f + 4.9999232e-1f;
  Vec power = (high * squared + low) * squared + (r + 1.f);
  return (Vec)((IntVec)power + ((IntVec)shifted << 23));  // times 2^n
}

constexpr int CHAIN = 4;  // terms that are added up in float32, so that errors stay below 2e-7

// The sum of a block's weights, where they themselves are not looked at: in half the time.
double sum_block(const float* scores, float best, float inverse) {
  Sums sums;
  for (int i = 0; i < BLOCK; i += CHAIN * SUMS)
    UNROLL for (int j = 0; j < Sums::PARTS; j++) {
      Vec chain = splat(0);
      UNROLL for (int k = 0; k < CHAIN; k++) {
        Vec exponent = (load(scores + i + k * SUMS + j * LANES) - best) * inverse;
        chain += brief_decay(max(exponent, splat(2 * FAR)));
      }
      sums.add(j, chain);
    }
  return sums.total();
}

// By block the sum of its weights, into `sums`, if its scores reach `least`; the weights themselves and
// the greatest, into `most`, of blocks that reach `kept`, 0 of others. Returns the sum of all.
double weigh(const Scores& scores, int blocks, double best, double least, double kept, float inverse,
             const Bench& bench) {
  float room[BLOCK];
  double total = 0;
  for (int b = 0; b < blocks; b++) {
    double most = bench.most[b];
    bench.most[b] = bench.sums[b] = 0;
    bool has_weight = ((float)most - (float)best) * inverse >= FAR;  // else no token to be drawn
    if (most < least || !has_weight) continue;
    const float* block = scores.block(b, room);
    float* weights = bench.weights + (int64_t)b * BLOCK;
    bench.sums[b] = most < kept ? sum_block(block, (float)best, inverse)
                                : weigh_block(block, (float)best, inverse, weights, &bench.most[b]);
    total += bench.sums[b];
  }
  return total;
}

}  // namespace
