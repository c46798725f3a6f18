// From scores to weights, bit for bit the CPU sampler's (decay() in scores.h there): the unit is
// compiled without contracted multiply-adds.
#pragma once

#include "edit.h"

constexpr float FAR = -32.f;            // exponents below it weigh nothing
constexpr float UNITS = 0x1p46f;        // of mass in a weight of 1; each weight but 0 has one at least
static_assert(MAX_SLICES * SLICE <= 1 << 18, "the mass of all tokens fits 64 bits");

__device__ __forceinline__ float round_even(float x) { return (x + 12582912.f) - 12582912.f; }

// e^x for x from FAR to 0.
__device__ __forceinline__ float decay(float x) {
  const float n = round_even(x * 1.44269504f);
  const float r = x - n * 0.693359375f + n * 2.12194440e-4f, squared = r * r;
  const float high = r * 1.9875691500e-4f + 1.3981999507e-3f;
  const float middle = r * 8.3334519073e-3f + 4.1665795894e-2f;
  const float low = r * 1.6666665459e-1f + 5.0000001201e-1f;
  const float power = ((high * squared + middle) * squared + low) * squared + (r + 1.f);
  return power * __uint_as_float(static_cast<unsigned>(static_cast<int>(n) + 127) << 23);
}

__device__ __forceinline__ float weight_of(float score, float best, float inverse) {
  const float exponent = (score - best) * inverse;
  return exponent < FAR ? 0.f : decay(exponent);
}

// Sums of masses are integers, so that no order, batch or number of threads changes them.
__device__ __forceinline__ u64 mass_of(float weight) { return __float2ull_rn(weight * UNITS); }

// A warp for each slice: its weights, their sum and the greatest one. Of a slice that weighs nothing
// the weights are not written.
// Grid: (slices / SLICE_WARPS, turns).
extern "C" __global__ void __launch_bounds__(SLICE_WARPS * LANES)
    weigh_scores(const Turn* turns, const float* logits, Tables tables) {
  const Turn& turn = turns[blockIdx.y];
  const int slice = blockIdx.x * num_warps() + warp_of();
  if (slice >= tables.slices() || turn.forced >= 0 || turn.inverse == 0) return;
  const size_t first = static_cast<size_t>(blockIdx.y) * tables.slices();
  const float best = greatest_of(tables.most + first, tables.slices());
  if (!is_finite(best)) return;  // a fault, or no token
  float* weights = tables.scores + static_cast<size_t>(blockIdx.y) * tables.vocab;
  const float* scores =
      is_edited(turn) ? weights : logits + static_cast<size_t>(turn.row) * tables.vocab;
  float heaviest = 0;
  u64 mass = 0;
  if (weight_of(tables.most[first + slice], best, turn.inverse) > 0) {
#pragma unroll
    for (int j = 0; j < PER_LANE; ++j) {
      const int token = slice * SLICE + j * LANES + lane_of();
      if (token >= tables.vocab) continue;
      const float weight = weight_of(scores[token], best, turn.inverse);
      weights[token] = weight;
      heaviest = weight > heaviest ? weight : heaviest;
      mass += mass_of(weight);
    }
    heaviest = greatest(heaviest);
    mass = sum(mass);
  }
  if (lane_of() == 0) {
    tables.heaviest[first + slice] = heaviest;
    tables.masses[first + slice] = mass;
  }
}
