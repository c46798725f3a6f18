// What the host gives the sampler's kernels; the same as in tables.py.
#pragma once

using u64 = unsigned long long;

constexpr int SLICE = 256;                    // tokens of one warp, as in the CPU sampler's blocks
constexpr int LANES = 32;
constexpr int PER_LANE = SLICE / LANES;       // token j of a lane: 32 j + lane, so that loads adjoin
constexpr int WORDS = SLICE / 32;             // of a slice's bits
constexpr int MAX_SLICES = 1024;              // of a vocabulary
constexpr int MAX_BIASES = NEMOTRT_BIASES;    // of a slot
constexpr int SLICE_WARPS = 8;                // slices of a block in the kernels that go by slices
constexpr int MAX_THREADS = 1024;             // of a block that chooses

enum Edits : int { MASKED = 1, SEEN = 2, COUNTED = 4, BIASED = 8 };
enum Status : int { DRAWN, NOT_FINITE, NO_TOKEN };  // DrawStatus

// A sequence whose next token is due.
struct Turn {
  u64 seed, position;           // of the random number
  double top_p;                 // 1: every token
  double presence, frequency;
  float inverse;                // 1 / temperature, 0 for the likeliest token
  float least_weight;           // min_p, 0 for none
  float repetition;
  int slot, row;                // of the tables, of the logits
  int forced;                   // the token whatever the logits say, or -1
  int top_k;                    // 0: every token
  int num_biased;
  int edits;                    // what changes the logits, and what is remembered
};

struct Result {
  int token, status;
};

struct Tables {
  const unsigned* masks;        // bits [slots, slices, WORDS], from the lowest: what may come
  unsigned* seen;               // bits [slots, slices, WORDS] of prompt and output
  int* counts;                  // [slots, vocab] of the output
  const int* biased;            // [slots, MAX_BIASES] tokens, ascending
  const double* biases;         // [slots, MAX_BIASES], what their logits get
  long long* tokens;            // [slots], the last one chosen
  float* scores;                // [turns, vocab], edited logits, which their weights replace
  float* most;                  // [turns, slices], the greatest score; infinity for a fault
  float* heaviest;              // [turns, slices], the greatest weight
  u64* masses;                  // [turns, slices], the sum of the weights
  Result* results;              // [turns]
  int vocab;

  __device__ int slices() const { return (vocab + SLICE - 1) / SLICE; }
};

__device__ __forceinline__ float infinity() { return __uint_as_float(0x7f800000u); }
__device__ __forceinline__ bool is_finite(float value) {
  return (__float_as_uint(value) & 0x7f800000u) != 0x7f800000u;
}
