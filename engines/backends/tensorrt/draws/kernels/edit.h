// Penalties, masks and biases, in the CPU sampler's order and its float arithmetic (scores.h there).
#pragma once

#include "collectives.h"

constexpr float LARGEST = 3.402823466e+38f;

__device__ __forceinline__ float clipped(double value) {
  return static_cast<float>(value > LARGEST ? LARGEST : value < -LARGEST ? -LARGEST : value);
}

__device__ __forceinline__ float repeated(float score, float factor) {
  const float changed = score > 0 ? score / factor : score * factor;
  return changed > LARGEST ? LARGEST : changed < -LARGEST ? -LARGEST : changed;
}

// The first of a slot's biased tokens that is not below `token`.
__device__ __forceinline__ int first_bias(const int* biased, int count, int token) {
  int begin = 0;
  while (begin < count) {
    const int middle = (begin + count) / 2;
    if (biased[middle] < token) begin = middle + 1;
    else count = middle;
  }
  return begin;
}

__device__ __forceinline__ void add_biases(const Turn& turn, const Tables& tables, int start,
                                           float (&scores)[PER_LANE]) {
  const int* biased = tables.biased + static_cast<size_t>(turn.slot) * MAX_BIASES;
  const double* biases = tables.biases + static_cast<size_t>(turn.slot) * MAX_BIASES;
  int i = first_bias(biased, turn.num_biased, start);
  for (; i < turn.num_biased && biased[i] < start + SLICE; ++i) {
#pragma unroll
    for (int j = 0; j < PER_LANE; ++j)
      if (biased[i] == start + j * LANES + lane_of() && scores[j] != -infinity())
        scores[j] = clipped(static_cast<double>(scores[j]) + biases[i]);
  }
}

__device__ __forceinline__ void edit(const Turn& turn, const Tables& tables, int slice,
                                     float (&scores)[PER_LANE]) {
  const size_t word = (static_cast<size_t>(turn.slot) * tables.slices() + slice) * WORDS;
  const int start = slice * SLICE;
#pragma unroll
  for (int j = 0; j < PER_LANE; ++j) {
    const int token = start + j * LANES + lane_of();
    if (token >= tables.vocab) continue;
    float& score = scores[j];
    if (turn.edits & SEEN && tables.seen[word + j] >> lane_of() & 1)
      score = repeated(score, turn.repetition);
    if (turn.edits & MASKED && !(tables.masks[word + j] >> lane_of() & 1)) score = -infinity();
    if (turn.edits & COUNTED && score != -infinity()) {
      const int count = tables.counts[static_cast<size_t>(turn.slot) * tables.vocab + token];
      if (count) score = clipped(score - (turn.presence + turn.frequency * count));
    }
  }
  if (turn.edits & BIASED) add_biases(turn, tables, start, scores);
}

__device__ __forceinline__ bool is_edited(const Turn& turn) {
  return turn.forced < 0 && turn.edits;
}

// A warp for each slice: the greatest of its scores, and the scores themselves where they are not the
// logits. A logit that is not finite makes the slice's greatest score infinite.
// Grid: (slices / SLICE_WARPS, turns).
extern "C" __global__ void __launch_bounds__(SLICE_WARPS * LANES)
    edit_logits(const Turn* turns, const float* logits, Tables tables) {
  const Turn& turn = turns[blockIdx.y];
  const int slice = blockIdx.x * num_warps() + warp_of();
  if (slice >= tables.slices()) return;
  const float* row = logits + static_cast<size_t>(turn.row) * tables.vocab;
  float* target = tables.scores + static_cast<size_t>(blockIdx.y) * tables.vocab;
  float scores[PER_LANE], most = -infinity();
  bool is_faulty = false;
#pragma unroll
  for (int j = 0; j < PER_LANE; ++j) {
    const int token = slice * SLICE + j * LANES + lane_of();
    scores[j] = token < tables.vocab ? row[token] : -infinity();
    if (token < tables.vocab && !is_finite(scores[j])) is_faulty = true;
  }
  if (is_edited(turn)) edit(turn, tables, slice, scores);
#pragma unroll
  for (int j = 0; j < PER_LANE; ++j) {
    const int token = slice * SLICE + j * LANES + lane_of();
    if (is_edited(turn) && token < tables.vocab) target[token] = scores[j];
    most = scores[j] > most ? scores[j] : most;
  }
  most = greatest(is_faulty ? infinity() : most);
  if (lane_of() == 0) tables.most[blockIdx.y * tables.slices() + slice] = most;
}
