// A turn's token: the likeliest, a drawn or a forced one.
#pragma once

#include "nucleus.h"

// The first number of Philox4x64-10, of which 53 bits count. Source: Salmon et al., Parallel random
// numbers: as easy as 1, 2, 3 (SC 2011).
__device__ __forceinline__ u64 random_bits(u64 seed, u64 position) {
  u64 counter[4] = {position + 1, position + 1 == 0, 0, 0}, key[2] = {seed, 0};
  for (int round = 0; round < 10; ++round) {
    const u64 a = 0xD2E7470EE14C6C93ull, b = 0xCA5A826395121157ull;
    const u64 next[4] = {__umul64hi(b, counter[2]) ^ counter[1] ^ key[0], b * counter[2],
                         __umul64hi(a, counter[0]) ^ counter[3] ^ key[1], a * counter[0]};
    for (int i = 0; i < 4; ++i) counter[i] = next[i];
    key[0] += 0x9E3779B97F4A7C15ull;
    key[1] += 0xBB67AE8584CAA73Bull;
  }
  return counter[0] >> 11 << 11;
}

// The lowest token with the greatest score.
__device__ __forceinline__ int likeliest(float best, const float* scores, const float* most,
                                         int vocab, int slices, Board& board) {
  clear(board);
  for (int slice = threadIdx.x; slice < slices; slice += blockDim.x)
    board.parts[slice] = most[slice] == best;
  __syncthreads();
  const int start = find(board, 1).part * SLICE;
  for (int j = 0; j < PER_LANE; ++j) {
    const int token = start + j * LANES + lane_of();
    const unsigned found = __ballot_sync(ALL, token < vocab && scores[token] == best);
    if (found) return start + j * LANES + __ffs(found) - 1;
  }
  return 0;
}

// Where the random number falls among the kept masses, in the order of their tokens.
__device__ __forceinline__ int drawn(const Turn& turn, const u64* masses, const Weights& all,
                                     Board& board) {
  const Cut cut = cut_of(turn, masses, all, board);
  measure(cut, masses, all, board);
  const u64 point = __umul64hi(random_bits(turn.seed, turn.position), sum_of(board));
  const Place place = find(board, point + 1);
  u64 left = point - place.before;
  for (int j = 0; j < PER_LANE; ++j) {
    const int token = place.part * SLICE + j * LANES + lane_of();
    const float weight = token < all.vocab ? all.weights[token] : 0.f;
    const u64 mass = cut.keeps(weight, token) ? mass_of(weight) : 0, upto = running_sum(mass);
    const unsigned found = __ballot_sync(ALL, upto > left);
    if (found) return token - lane_of() + __ffs(found) - 1;
    left -= __shfl_sync(ALL, upto, LANES - 1);
  }
  return 0;
}

// A failed turn's token is 0, so that the next step computes something, and nothing is remembered.
__device__ __forceinline__ void conclude(const Turn& turn, int token, Status status,
                                         const Tables& tables) {
  if (threadIdx.x) return;
  tables.tokens[turn.slot] = token;
  tables.results[blockIdx.x] = {token, status};
  if (status != DRAWN) return;
  const size_t words = static_cast<size_t>(turn.slot) * tables.slices() * WORDS;
  if (turn.edits & SEEN) tables.seen[words + token / 32] |= 1u << token % 32;
  if (turn.edits & COUNTED) tables.counts[static_cast<size_t>(turn.slot) * tables.vocab + token]++;
}

// A block for each turn: its token, for the host and for the next step's input.
// Grid: (turns).
extern "C" __global__ void __launch_bounds__(MAX_THREADS)
    choose_tokens(const Turn* turns, const float* logits, Tables tables) {
  __shared__ Board board;
  const Turn turn = turns[blockIdx.x];
  const int slices = tables.slices();
  const size_t first = static_cast<size_t>(blockIdx.x) * slices;
  const float* most = tables.most + first;
  const float best = greatest_of(most, slices);
  if (best == infinity()) return conclude(turn, 0, NOT_FINITE, tables);
  if (best == -infinity()) return conclude(turn, 0, NO_TOKEN, tables);
  if (turn.forced >= 0) return conclude(turn, turn.forced, DRAWN, tables);
  const float* own = tables.scores + static_cast<size_t>(blockIdx.x) * tables.vocab;
  int token;
  if (turn.inverse == 0) {
    const float* row = logits + static_cast<size_t>(turn.row) * tables.vocab;
    token = likeliest(best, is_edited(turn) ? own : row, most, tables.vocab, slices, board);
  } else {
    const Weights all = {own, tables.heaviest + first, tables.vocab, slices};
    token = drawn(turn, tables.masses + first, all, board);
  }
  conclude(turn, token, DRAWN, tables);
}
