// What min_p, top_k and top_p keep of a turn's weights: a prefix of their order, ties by index.
#pragma once

#include "weights.h"

constexpr int DIGIT = 10;  // bits by which a weight is narrowed down; weights are below 2
constexpr int DIGITS = 3;

struct Weights {
  const float* weights;   // [vocab]
  const float* heaviest;  // [slices]
  int vocab, slices;
};

// The last token that is kept: those of greater weight are, and of its equals those up to `index`.
struct Cut {
  float weight;
  int index;
  __device__ bool keeps(float w, int i) const { return w > weight || (w == weight && i <= index); }
};

__device__ __forceinline__ Cut everything() { return {0, -1}; }

__device__ __forceinline__ Cut shorter(Cut a, Cut b) {
  if (a.weight != b.weight) return a.weight > b.weight ? a : b;
  return a.index < b.index ? a : b;
}

// Visits (slice, token, weight) of the slices with a weight of at least `least`, a warp for each; the
// weight of a token past the vocabulary is 0. `finish` follows each slice.
template <class Visit, class Finish>
__device__ __forceinline__ void each_slice(const Weights& all, float least, Visit visit,
                                           Finish finish) {
  for (int slice = warp_of(); slice < all.slices; slice += num_warps()) {
    if (!(all.heaviest[slice] > 0) || all.heaviest[slice] < least) continue;
#pragma unroll
    for (int j = 0; j < PER_LANE; ++j) {
      const int token = slice * SLICE + j * LANES + lane_of();
      visit(token, token < all.vocab ? all.weights[token] : 0.f);
    }
    finish(slice);
  }
}

// Adds to a part of the board, neighbours of one part at once: in a flat distribution most are.
struct Adder {
  Board& board;
  int part = -1;
  u64 amount = 0;
  __device__ void flush() {
    if (part >= 0) atomicAdd(&board.parts[part], amount);
    part = -1, amount = 0;
  }
  __device__ void add(int to, u64 more) {
    if (to != part) flush();
    part = to, amount += more;
  }
};

// The number of tokens, or their mass, by the next digit of those weights that begin with `head`; the
// greatest comes first.
__device__ __forceinline__ void count_digits(bool by_mass, unsigned head, int shift,
                                             const Weights& all, Board& board) {
  clear(board);
  Adder adder{board};
  each_slice(
      all, __uint_as_float(head << shift << DIGIT),
      [&](int, float weight) {
        const unsigned bits = __float_as_uint(weight);
        if (bits && bits >> shift >> DIGIT == head)
          adder.add(PARTS - 1 - (bits >> shift & (PARTS - 1)), by_mass ? mass_of(weight) : 1);
      },
      [](int) {});
  adder.flush();
  __syncthreads();
}

// The index of number `rank`, from 1, of the tokens with just this weight.
__device__ __forceinline__ int index_of(u64 rank, float weight, const Weights& all, Board& board) {
  clear(board);
  int count = 0;
  each_slice(
      all, weight, [&](int, float w) { count += __popc(__ballot_sync(ALL, w == weight)); },
      [&](int slice) {
        if (lane_of() == 0) board.parts[slice] = count;
        count = 0;
      });
  __syncthreads();
  const Place place = find(board, rank);
  int left = static_cast<int>(rank - place.before);
  for (int j = 0; j < PER_LANE; ++j) {
    const int start = place.part * SLICE + j * LANES, token = start + lane_of();
    unsigned equals = __ballot_sync(ALL, token < all.vocab && all.weights[token] == weight);
    for (; equals; equals &= equals - 1)
      if (--left == 0) return start + __ffs(equals) - 1;
  }
  return all.vocab;
}

// The shortest prefix whose number, or mass, reaches `target`; everything where none does.
__device__ __forceinline__ Cut prefix(bool by_mass, u64 target, const Weights& all, Board& board) {
  unsigned head = 0;
  u64 equals = 0;  // number or mass of the tokens with the last one's weight
  for (int digit = DIGITS - 1; digit >= 0; --digit) {
    count_digits(by_mass, head, digit * DIGIT, all, board);
    const Place place = find(board, target);
    if (place.part == PARTS) return everything();
    head = head << DIGIT | (PARTS - 1 - place.part);
    target -= place.before;
    equals = place.value;
  }
  const float weight = __uint_as_float(head);
  const u64 unit = by_mass ? mass_of(weight) : 1, rank = (target + unit - 1) / unit;
  if (rank * unit == equals) return {weight, all.vocab};
  return {weight, index_of(rank, weight, all, board)};
}

// By slice the mass that is kept, on the board.
__device__ __forceinline__ void measure(Cut cut, const u64* masses, const Weights& all,
                                        Board& board) {
  clear(board);
  if (cut.weight == 0) {
    for (int slice = threadIdx.x; slice < all.slices; slice += blockDim.x)
      board.parts[slice] = masses[slice];
  } else {
    u64 mass = 0;
    each_slice(
        all, cut.weight,
        [&](int token, float weight) { mass += cut.keeps(weight, token) ? mass_of(weight) : 0; },
        [&](int slice) {
          mass = sum(mass);
          if (lane_of() == 0) board.parts[slice] = mass;
          mass = 0;
        });
  }
  __syncthreads();
}

__device__ __forceinline__ Cut cut_of(const Turn& turn, const u64* masses, const Weights& all,
                                      Board& board) {
  Cut cut = everything();
  if (turn.least_weight > 0) cut = {turn.least_weight, all.vocab};
  if (turn.top_k > 0) cut = shorter(cut, prefix(false, turn.top_k, all, board));
  if (turn.top_p < 1) {
    measure(cut, masses, all, board);
    const double target = turn.top_p * static_cast<double>(sum_of(board));
    u64 whole = static_cast<u64>(target);
    whole += static_cast<double>(whole) < target;
    cut = shorter(cut, prefix(true, whole ? whole : 1, all, board));
  }
  return cut;
}
