// Log-probabilities of a token and of the likeliest, of the logits as the model gave them.
#pragma once

#include "scores.h"

namespace {

// The sum of e^(logit - best).
double total_of(const Row& row, double best, const Bench& bench) {
  double total = 0;
  for (int b = 0; b < row.blocks(); b++)
    if (bench.raw_most[b] >= best + FAR) total += sum_block(row.block(b), (float)best, 1);
  return total;
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
