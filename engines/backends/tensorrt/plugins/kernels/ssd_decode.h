// One step of Mamba-2's recurrence: state = state * exp(dt A) + dt x B; y = state C + D x.
//
// It moves the state, and little else: each element is read once and written once, 16 bytes a lane,
// adjoining lanes at adjoining addresses. A warp has all its rows on their way before it asks for
// anything else, and before it uses one.
#pragma once

#include "bfloat16.h"
#include "dims.h"
#include "time_step.h"

__host__ __device__ constexpr int power_of_two(int value) {
  return value <= 1 ? 1 : 2 * power_of_two((value + 1) / 2);
}

constexpr int DECODE_WARPS = 4;
constexpr int VECTOR = STATE % 4 == 0 ? 4 : 1;  // states that a lane moves at once
constexpr int ROW_LANES = STATE / VECTOR >= 32 ? 32 : power_of_two(STATE / VECTOR);
constexpr int ROW_STEPS = (STATE + VECTOR * ROW_LANES - 1) / (VECTOR * ROW_LANES);
constexpr int ROWS_AT_ONCE = 32 / ROW_LANES;                        // rows of a warp side by side
constexpr int DECODE_ROWS = NEMOTRT_DECODE_ROWS;                    // rows (channels) of a block
constexpr int DEPTH = DECODE_ROWS / (DECODE_WARPS * ROWS_AT_ONCE);  // rows of a lane, all in flight
static_assert(DEPTH > 0 && DECODE_ROWS == DEPTH * DECODE_WARPS * ROWS_AT_ONCE, "rows don't divide");

// A lane's adjoining states; read and written past the caches, which they would only fill.
__device__ __forceinline__ void load_states(float (&to)[4], const float* from) {
  const float4 loaded = __ldcs(reinterpret_cast<const float4*>(from));
  to[0] = loaded.x, to[1] = loaded.y, to[2] = loaded.z, to[3] = loaded.w;
}

__device__ __forceinline__ void load_states(float (&to)[1], const float* from) {
  to[0] = __ldcs(from);
}

__device__ __forceinline__ void store_states(float* to, const float (&from)[4]) {
  __stcs(reinterpret_cast<float4*>(to), make_float4(from[0], from[1], from[2], from[3]));
}

__device__ __forceinline__ void store_states(float* to, const float (&from)[1]) {
  __stcs(to, from[0]);
}

// As many bfloat16 values, of B or C.
__device__ __forceinline__ void load_values(float (&to)[VECTOR], const bf16* from) {
  if constexpr (VECTOR == 4 && INNER % 4 == 0) {  // then every group's values start at 8 bytes
    const uint2 loaded = *reinterpret_cast<const uint2*>(from);
    const unsigned words[2] = {loaded.x, loaded.y};
#pragma unroll
    for (int i = 0; i < VECTOR; ++i)
      to[i] = i % 2 ? high_half(words[i / 2]) : low_half(words[i / 2]);
  } else {
#pragma unroll
    for (int i = 0; i < VECTOR; ++i) to[i] = widen(from[i]);
  }
}

// xbc [B, 1, C], projected [B, 1, WIDTH], state [B, H, P, N], lengths [B] -> y [B, 1, H * P]
// Grid: (H, P / DECODE_ROWS, B).
extern "C" __global__ void __launch_bounds__(32 * DECODE_WARPS)
    ssd_decode(const bf16* __restrict__ xbc, const bf16* __restrict__ projected,
               const float* state_in, const float* __restrict__ dt_bias,
               const float* __restrict__ decay, const float* __restrict__ skip,
               const long long* __restrict__ lengths, float* __restrict__ y, float* state_out,
               float dt_min, float dt_max) {
  const int head = blockIdx.x, sequence = blockIdx.z;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int first = blockIdx.y * DECODE_ROWS + warp * ROWS_AT_ONCE * DEPTH + lane / ROW_LANES;
  const int column = lane % ROW_LANES * VECTOR;
  const long long place = static_cast<long long>(sequence * HEADS + head) * HEAD_DIM * STATE;

  float state[DEPTH][ROW_STEPS][VECTOR] = {};
#pragma unroll
  for (int d = 0; d < DEPTH; ++d) {
    const int p = first + d * ROWS_AT_ONCE;
#pragma unroll
    for (int step = 0; step < ROW_STEPS; ++step) {
      const int n = step * ROW_LANES * VECTOR + column;
      if (p < HEAD_DIM && n < STATE) load_states(state[d][step], state_in + place + p * STATE + n);
    }
  }

  const bf16* values = xbc + static_cast<long long>(sequence) * CHANNELS;
  const bf16* b_row = values + INNER + head / (HEADS / GROUPS) * STATE;
  float b[ROW_STEPS][VECTOR] = {}, c[ROW_STEPS][VECTOR] = {}, x[DEPTH] = {};
#pragma unroll
  for (int step = 0; step < ROW_STEPS; ++step) {
    const int n = step * ROW_LANES * VECTOR + column;
    if (n < STATE) {
      load_values(b[step], b_row + n);
      load_values(c[step], b_row + GROUPS * STATE + n);
    }
  }
#pragma unroll
  for (int d = 0; d < DEPTH; ++d) {
    const int p = first + d * ROWS_AT_ONCE;
    if (p < HEAD_DIM) x[d] = widen(values[head * HEAD_DIM + p]);
  }
  const float raw = widen(projected[static_cast<long long>(sequence) * WIDTH + DT_OFFSET + head]);
  const bool is_fed = new_tokens(lengths, sequence, 1) > 0;
  const float dt = is_fed ? time_step(raw, dt_bias[head], dt_min, dt_max) : 0.0f;
  const float kept = expf(dt * decay[head]), through = skip[head];

#pragma unroll
  for (int d = 0; d < DEPTH; ++d) {
    const int p = first + d * ROWS_AT_ONCE;
    const float added = dt * x[d];
    float sum = 0.0f;
#pragma unroll
    for (int step = 0; step < ROW_STEPS; ++step) {
      float (&own)[VECTOR] = state[d][step];
#pragma unroll
      for (int i = 0; i < VECTOR; ++i) {
        own[i] = own[i] * kept + added * b[step][i];
        sum += own[i] * c[step][i];
      }
      const int n = step * ROW_LANES * VECTOR + column;
      if (p < HEAD_DIM && n < STATE) store_states(state_out + place + p * STATE + n, own);
    }
#pragma unroll
    for (int other = ROW_LANES / 2; other > 0; other /= 2) {
      sum += __shfl_xor_sync(0xffffffffu, sum, other);
    }
    if (column == 0 && p < HEAD_DIM) {
      y[static_cast<long long>(sequence) * INNER + head * HEAD_DIM + p] = sum + through * x[d];
    }
  }
}
