// Log-probabilities of a token and of the likeliest, of the logits as the model gave them.
#pragma once

#include "scores.h"

namespace {

// e^x for x from 2 FAR to 0, with two terms less than decay(); relative error about 2e-7, and e^0 is 1.
// The polynomial is the best of those that begin with 1 + x, on [-ln 2 / 2, ln 2 / 2]: 1.05e-7.
INLINE Vec brief_decay(Vec x) {
  Vec shifted = x * 1.44269504f + 12582912.f, n = shifted - 12582912.f;  // nearest integer
  Vec r = x - n * 0.693359375f + n * 2.12194440e-4f, squared = r * r;
  Vec high = r * 8.31252e-3f + 4.189011e-2f, low = r * 1.6667114e-1f + 4.9999232e-1f;
  Vec power = (high * squared + low) * squared + (r + 1.f);
  return (Vec)((IntVec)power + ((IntVec)shifted << 23));  // times 2^n
}

constexpr int CHAIN = 4;  // weights that are added up in float32, so that errors stay below 2e-7

// The sum of e^(logit - best).
double total_of(const Row& row, double best, const Bench& bench) {
  Sums sums;
  for (int b = 0; b < row.blocks(); b++) {
    if (bench.raw_most[b] < best + FAR) continue;
    for (const float *at = row.block(b), *end = at + BLOCK; at < end; at += CHAIN * SUMS)
      UNROLL for (int j = 0; j < Sums::PARTS; j++) {
        Vec chain = splat(0);
        UNROLL for (int i = 0; i < CHAIN; i++)
          chain += brief_decay(max(load(at + i * SUMS + j * LANES) - (float)best, splat(2 * FAR)));
        sums.add(j, chain);
      }
  }
  return sums.total();
}

void score(const Row& row, Draw& draw, const Bench& bench) {
  int blocks = row.blocks(), count = (int)lesser(draw.num_top, row.size);
  double best = greatest(bench.raw_most, blocks);
  double base = best + log(total_of(row, best, bench)), mine = row.scores[draw.token];
  draw.logprob = mine - base;
  if (draw.wants_rank) {
    draw.rank = 1;
    for (int b = 0; b < blocks; b++)
      if (bench.raw_most[b] > mine)
        for (int i = 0; i < BLOCK; i++) draw.rank += row.block(b)[i] > mine;
  }
  if (count == 0) return;
  double least = -INFINITY;
  if (count <= blocks) least = reached_by(count, bench.raw_most, blocks, bench.copy);
  int32_t* end = bench.order;
  for (int b = 0; b < blocks; b++) {
    if (bench.raw_most[b] < least) continue;
    int64_t start = (int64_t)b * BLOCK, stop = lesser(row.size, start + BLOCK);
    for (int64_t i = start; i < stop; i++)
      if (row.scores[i] >= least) *end++ = (int32_t)i;
  }
  const float* scores = row.scores;
  sort(bench.order, end - bench.order, [=](int32_t a, int32_t b) {
    return scores[a] > scores[b] || (scores[a] == scores[b] && a < b);
  });
  for (int i = 0; i < count; i++) {
    draw.top_ids[i] = bench.order[i];
    draw.top_logprobs[i] = scores[bench.order[i]] - base;
  }
}

}  // namespace
