// Mamba-2's recurrence over many tokens: its state-space dual form in chunks of 32 tokens.
//
// One block has one head of one sequence and goes through its chunks in order; a warp has 16 of the
// head's channels. The state [16 channels, N] stays in the accumulators of the tensor cores, in
// float32, from the first chunk to the last: read once, written once. Inside a chunk
//     y = exp(a) (C state') + ((C B') exp(a - a') dt' if token' <= token) x + D x
//     state = exp(a_last) state + (dt exp(a_last - a) x)' B
// with a the sum of dt A up to a token. B, C and x are bfloat16; every float32 factor (state,
// scores, weighted x) is the sum of two bfloat16, so the products keep 16 bits where one keeps 8.
// Source: Mamba-2 paper, arXiv 2405.21060, section 6.
#pragma once

#include "bfloat16.h"
#include "dims.h"
#include "tensor_core.h"
#include "time_step.h"

constexpr int CHUNK = 32;  // one lane a token for the sums of dt A
constexpr int HEAD_PAD = round_up(HEAD_DIM, 16);
constexpr int STATE_PAD = round_up(STATE, 16);
constexpr int PREFILL_THREADS = 32 * (HEAD_PAD / 16);
constexpr int SKEW = 8;  // values that part rows, so that eight rows lie in different banks

struct ChunkTile {
  alignas(16) bf16 x[CHUNK][HEAD_PAD + SKEW];
  alignas(16) bf16 b[CHUNK][STATE_PAD + SKEW];
  alignas(16) bf16 c[CHUNK][STATE_PAD + SKEW];
  alignas(16) bf16 score_high[CHUNK][CHUNK + SKEW];
  alignas(16) bf16 score_low[CHUNK][CHUNK + SKEW];
  float dt[CHUNK];
  float sum[CHUNK];     // of dt A, up to and with the token
  float before[CHUNK];  // exp(sum): what is left of the state before the chunk
  float after[CHUNK];   // dt exp(sum of the later): what the state after the chunk has of the token
};

// Rows of `width` values into a padded tile; zeros past `num_rows` and past `width`.
template <int width, int padded>
__device__ __forceinline__ void load_rows(bf16 (&tile)[CHUNK][padded + SKEW], const bf16* from,
                                          int num_rows) {
  constexpr bool is_aligned =
      HEAD_DIM % 8 == 0 && STATE % 8 == 0;  // so each row starts at 16 bytes
  constexpr int step = is_aligned ? 8 : 1;
  for (int i = threadIdx.x; i < CHUNK * (padded / step); i += PREFILL_THREADS) {
    const int row = i / (padded / step), column = i % (padded / step) * step;
    const bool is_there = row < num_rows && column < width;
    const bf16* source = from + static_cast<long long>(row) * CHANNELS + column;
    if constexpr (is_aligned) {
      const uint4 zero = {0, 0, 0, 0};
      *reinterpret_cast<uint4*>(&tile[row][column]) =
          is_there ? *reinterpret_cast<const uint4*>(source) : zero;
    } else {
      tile[row][column] = is_there ? *source : bf16{0};
    }
  }
}

// By one warp, a lane a token. The later tokens are summed for themselves: the difference of two
// sums over many would keep an error of the larger one's last bit.
__device__ __forceinline__ void load_time_steps(ChunkTile& tile, const bf16* dt_column, int num_fed,
                                                const HeadRates& rates, int head) {
  const int lane = threadIdx.x % 32;
  float dt = 0.0f;
  if (lane < num_fed) {
    const float raw = widen(dt_column[static_cast<long long>(lane) * WIDTH]);
    dt = time_step(raw, rates.dt_bias[head], rates.dt_min, rates.dt_max);
  }
  float sum = dt * rates.decay[head];
  float later = __shfl_down_sync(0xffffffffu, sum, 1);
  if (lane == 31) later = 0.0f;
#pragma unroll
  for (int distance = 1; distance < 32; distance *= 2) {
    const float other = __shfl_up_sync(0xffffffffu, sum, distance);
    const float further = __shfl_down_sync(0xffffffffu, later, distance);
    if (lane >= distance) sum += other;
    if (lane + distance < 32) later += further;
  }
  tile.dt[lane] = dt;
  tile.sum[lane] = sum;
  tile.before[lane] = expf(sum);
  tile.after[lane] = dt * expf(later);
}

// The scores of the chunk's tokens, each warp some 16 x 8 of the tiles that are not all masked.
__device__ __forceinline__ void score(ChunkTile& tile) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int task = 0;
#pragma unroll
  for (int m = 0; m < CHUNK; m += 16) {
#pragma unroll
    for (int n = 0; n < m + 16; n += 8, ++task) {
      if (task % (PREFILL_THREADS / 32) != warp) continue;
      float acc[4] = {};
#pragma unroll
      for (int k = 0; k < STATE_PAD; k += 16) {
        unsigned c[4], b[4];
        load_matrices(c, &tile.c[m + lane % 16][k + lane / 16 * 8]);
        load_matrices(b, &tile.b[n + lane % 8][k + lane / 8 % 2 * 8]);  // twice the same two
        multiply_add(acc, c, b[0], b[1]);
      }
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = m + half * 8 + lane / 4, column = n + lane % 4 * 2;
        float values[2];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const bool is_seen = column + i <= row;
          const float decay = is_seen ? expf(tile.sum[row] - tile.sum[column + i]) : 0.0f;
          values[i] = acc[half * 2 + i] * decay * tile.dt[column + i];
        }
        const Split parts = split(values[0], values[1]);
        *reinterpret_cast<unsigned*>(&tile.score_high[row][column]) = parts.high;
        *reinterpret_cast<unsigned*>(&tile.score_low[row][column]) = parts.low;
      }
    }
  }
}

// y' [16 channels, tokens] of what the state before the chunk holds.
__device__ __forceinline__ void read_state(float (&y)[CHUNK / 8][4], const ChunkTile& tile,
                                           const float (&state)[STATE_PAD / 8][4]) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int k = 0; k < STATE_PAD; k += 16) {
    unsigned high[4], low[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float (&from)[4] = state[k / 8 + i / 2];
      const Split parts = split(from[i % 2 * 2], from[i % 2 * 2 + 1]);
      high[i] = parts.high, low[i] = parts.low;
    }
#pragma unroll
    for (int token = 0; token < CHUNK; token += 16) {
      unsigned c[4];
      load_matrices(c, &tile.c[token + lane / 16 * 8 + lane % 8][k + lane / 8 % 2 * 8]);
      multiply_add(y[token / 8], high, c[0], c[1]);
      multiply_add(y[token / 8], low, c[0], c[1]);
      multiply_add(y[token / 8 + 1], high, c[2], c[3]);
      multiply_add(y[token / 8 + 1], low, c[2], c[3]);
    }
  }
#pragma unroll
  for (int part = 0; part < CHUNK / 8; ++part) {
#pragma unroll
    for (int i = 0; i < 4; ++i) y[part][i] *= tile.before[part * 8 + lane % 4 * 2 + i % 2];
  }
}

// y' += what the chunk's own tokens contribute; `x` is [16 channels, tokens] in pairs of tokens.
__device__ __forceinline__ void read_tokens(float (&y)[CHUNK / 8][4], const ChunkTile& tile,
                                            const unsigned (&x)[CHUNK / 16][4]) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int part = 0; part < CHUNK / 8; ++part) {
#pragma unroll
    for (int k = 0; k < part * 8 + 8; k += 16) {  // later tokens are masked
      const bf16(&scores)[CHUNK][CHUNK + SKEW] = lane < 16 ? tile.score_high : tile.score_low;
      unsigned s[4];
      load_matrices(s, &scores[part * 8 + lane % 8][k + lane / 8 % 2 * 8]);
      multiply_add(y[part], x[k / 16], s[0], s[1]);
      multiply_add(y[part], x[k / 16], s[2], s[3]);
    }
  }
}

// state = state * exp(last sum) + the chunk's tokens.
__device__ __forceinline__ void update_state(float (&state)[STATE_PAD / 8][4],
                                             const ChunkTile& tile,
                                             const unsigned (&x)[CHUNK / 16][4]) {
  const int lane = threadIdx.x % 32;
  const float kept = tile.before[CHUNK - 1];
#pragma unroll
  for (int part = 0; part < STATE_PAD / 8; ++part) {
#pragma unroll
    for (int i = 0; i < 4; ++i) state[part][i] *= kept;
  }
#pragma unroll
  for (int k = 0; k < CHUNK; k += 16) {
    unsigned high[4], low[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int token = k + i / 2 * 8 + lane % 4 * 2;
      const unsigned pair = x[k / 16][i];
      const Split parts =
          split(low_half(pair) * tile.after[token], high_half(pair) * tile.after[token + 1]);
      high[i] = parts.high, low[i] = parts.low;
    }
#pragma unroll
    for (int n = 0; n < STATE_PAD; n += 16) {
      unsigned b[4];
      load_transposed(b, &tile.b[k + lane % 16][n + lane / 16 * 8]);
      multiply_add(state[n / 8], high, b[0], b[1]);
      multiply_add(state[n / 8], low, b[0], b[1]);
      multiply_add(state[n / 8 + 1], high, b[2], b[3]);
      multiply_add(state[n / 8 + 1], low, b[2], b[3]);
    }
  }
}

// Copy the state of a warp's channels between memory and accumulators; the padding stays zero.
template <bool is_load>
__device__ __forceinline__ void move_state(float (&state)[STATE_PAD / 8][4], const float* from,
                                           float* to) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
  for (int part = 0; part < STATE_PAD / 8; ++part) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int p = warp * 16 + i / 2 * 8 + lane / 4, n = part * 8 + lane % 4 * 2 + i % 2;
      const bool is_there = p < HEAD_DIM && n < STATE;
      if constexpr (is_load) {
        state[part][i] = is_there ? from[p * STATE + n] : 0.0f;
      } else {
        if (is_there) to[p * STATE + n] = state[part][i];
      }
    }
  }
}

// xbc [B, T, C], projected [B, T, WIDTH], state [B, H, P, N], lengths [B] -> y [B, T, H * P]
// Grid: (H, B). Whole chunks of padding are not computed: their y is zero.
extern "C" __global__ void __launch_bounds__(PREFILL_THREADS, STATE_PAD <= 128 ? 3 : 1)
    ssd_prefill(const bf16* __restrict__ xbc, const bf16* __restrict__ projected,
                const float* state_in, const float* __restrict__ dt_bias,
                const float* __restrict__ decay, const float* __restrict__ skip,
                const long long* __restrict__ lengths, float* __restrict__ y, float* state_out,
                float dt_min, float dt_max, int tokens) {
  __shared__ ChunkTile tile;
  const HeadRates rates = {dt_bias, decay, skip, dt_min, dt_max};
  const int head = blockIdx.x, sequence = blockIdx.y, group = head / (HEADS / GROUPS);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int length = new_tokens(lengths, sequence, tokens);
  const long long first = static_cast<long long>(sequence) * tokens;
  const long long place = static_cast<long long>(sequence * HEADS + head) * HEAD_DIM * STATE;
  const float through = skip[head];
  float state[STATE_PAD / 8][4];
  move_state<true>(state, state_in + place, nullptr);

  for (int start = 0; start < tokens; start += CHUNK) {
    float* y_rows = y + (first + start) * INNER + head * HEAD_DIM;
    const int num_rows = min(CHUNK, tokens - start);
    if (start >= length) {
      for (int i = threadIdx.x; i < num_rows * HEAD_DIM; i += PREFILL_THREADS) {
        y_rows[static_cast<long long>(i / HEAD_DIM) * INNER + i % HEAD_DIM] = 0.0f;
      }
      continue;
    }
    const bf16* rows = xbc + (first + start) * CHANNELS;
    __syncthreads();  // the last chunk's tile is done with
    if (warp == 0) {
      const bf16* dt_column = projected + (first + start) * WIDTH + DT_OFFSET + head;
      load_time_steps(tile, dt_column, length - start, rates, head);
    }
    load_rows<HEAD_DIM, HEAD_PAD>(tile.x, rows + head * HEAD_DIM, num_rows);
    load_rows<STATE, STATE_PAD>(tile.b, rows + INNER + group * STATE, num_rows);
    load_rows<STATE, STATE_PAD>(tile.c, rows + INNER + (GROUPS + group) * STATE, num_rows);
    __syncthreads();
    score(tile);
    __syncthreads();

    unsigned x[CHUNK / 16][4];
#pragma unroll
    for (int k = 0; k < CHUNK; k += 16) {
      load_transposed(x[k / 16],
                      &tile.x[k + lane / 16 * 8 + lane % 8][warp * 16 + lane / 8 % 2 * 8]);
    }
    float sums[CHUNK / 8][4] = {};
    read_state(sums, tile, state);
    read_tokens(sums, tile, x);
#pragma unroll
    for (int part = 0; part < CHUNK / 8; ++part) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int token = part * 8 + lane % 4 * 2 + i % 2, p = warp * 16 + i / 2 * 8 + lane / 4;
        if (token < num_rows && p < HEAD_DIM) {
          y_rows[static_cast<long long>(token) * INNER + p] =
              sums[part][i] + through * widen(tile.x[token][p]);
        }
      }
    }
    update_state(state, tile, x);
  }
  move_state<false>(state, nullptr, state_out + place);
}
