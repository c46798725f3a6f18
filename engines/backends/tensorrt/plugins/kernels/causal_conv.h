// Depthwise causal convolution over the carried window and the new tokens, with bias and SiLU.
//
// A thread has one or two adjoining channels, a block 32 tokens of them. Only the block of the
// first tokens touches the window: its threads read theirs before they write, so window_in and
// window_out may be the same memory.
#pragma once

#include "bfloat16.h"
#include "dims.h"

constexpr int CONV_TOKENS = 32;  // of a block
constexpr int CONV_DEPTH = 8;    // tokens of a thread that are on their way
constexpr int WINDOW = CONV_KERNEL - 1;
static_assert(CONV_KERNEL >= 2 && WINDOW <= CONV_TOKENS, "a block of tokens must cover the window");
constexpr bool IS_PAIRED = CHANNELS % 2 == 0 && CONV_OFFSET % 2 == 0 && WIDTH % 2 == 0;
constexpr int CONV_CHANNELS = IS_PAIRED ? 2 : 1;  // of a thread

// The channels of one thread at one token, as bits.
__device__ __forceinline__ unsigned load_channels(const bf16* from) {
  if constexpr (IS_PAIRED) {
    return *reinterpret_cast<const unsigned*>(from);
  } else {
    return *from;
  }
}

__device__ __forceinline__ void store_channels(bf16* to, unsigned bits) {
  if constexpr (IS_PAIRED) {
    *reinterpret_cast<unsigned*>(to) = bits;
  } else {
    *to = static_cast<bf16>(bits);
  }
}

__device__ __forceinline__ float silu(float value) {
  return __fdividef(value, 1.0f + expf(-value));
}

// Move the window by the sequence's new tokens: row r is token length + r of old window and tokens.
__device__ __forceinline__ void move_window(const unsigned (&old)[WINDOW], const bf16* tokens,
                                            int length, bf16* window_out) {
#pragma unroll
  for (int row = 0; row < WINDOW; ++row) {
    const int from = length + row;
    unsigned bits = 0;
    if (from >= WINDOW) {
      bits = load_channels(tokens + static_cast<long long>(from - WINDOW) * WIDTH);
    } else {
#pragma unroll
      for (int known = 0; known < WINDOW; ++known) bits = known == from ? old[known] : bits;
    }
    store_channels(window_out + row * CHANNELS, bits);
  }
}

// projected [B, T, WIDTH], window [B, K - 1, C], weight [C, 1, K], bias [C], lengths [B]
// -> y [B, T, C]
// Grid: (C / CONV_CHANNELS / threads, any, B).
extern "C" __global__ void __launch_bounds__(128)
    causal_conv(const bf16* __restrict__ projected, const bf16* window_in,
                const bf16* __restrict__ weight, const bf16* __restrict__ bias,
                const long long* __restrict__ lengths, bf16* __restrict__ y, bf16* window_out,
                int tokens) {
  const int channel = (blockIdx.x * blockDim.x + threadIdx.x) * CONV_CHANNELS;
  const int sequence = blockIdx.z;
  if (channel >= CHANNELS) return;
  const bf16* x =
      projected + static_cast<long long>(sequence) * tokens * WIDTH + CONV_OFFSET + channel;
  y += static_cast<long long>(sequence) * tokens * CHANNELS + channel;
  const long long window = static_cast<long long>(sequence) * WINDOW * CHANNELS + channel;

  float taps[CONV_CHANNELS][CONV_KERNEL], offset[CONV_CHANNELS];
#pragma unroll
  for (int i = 0; i < CONV_CHANNELS; ++i) {
    offset[i] = widen(bias[channel + i]);
#pragma unroll
    for (int k = 0; k < CONV_KERNEL; ++k)
      taps[i][k] = widen(weight[(channel + i) * CONV_KERNEL + k]);
  }

  for (int start = blockIdx.y * CONV_TOKENS; start < tokens; start += gridDim.y * CONV_TOKENS) {
    unsigned past[WINDOW];
#pragma unroll
    for (int row = 0; row < WINDOW; ++row) {
      past[row] =
          load_channels(start == 0 ? window_in + window + row * CHANNELS
                                   : x + static_cast<long long>(start - WINDOW + row) * WIDTH);
    }
    if (start == 0)
      move_window(past, x, new_tokens(lengths, sequence, tokens), window_out + window);
    const int end = min(start + CONV_TOKENS, tokens);
    for (int group = start; group < end; group += CONV_DEPTH) {
      unsigned now[CONV_DEPTH];
#pragma unroll
      for (int i = 0; i < CONV_DEPTH; ++i) {
        if (group + i < end) now[i] = load_channels(x + static_cast<long long>(group + i) * WIDTH);
      }
#pragma unroll
      for (int i = 0; i < CONV_DEPTH; ++i) {
        if (group + i >= end) break;
        float low = offset[0], high = offset[CONV_CHANNELS - 1];
#pragma unroll
        for (int k = 0; k < CONV_KERNEL; ++k) {
          const unsigned bits = k < WINDOW ? past[k < WINDOW ? k : 0] : now[i];
          low += taps[0][k] * low_half(bits);
          if constexpr (IS_PAIRED) high += taps[CONV_CHANNELS - 1][k] * high_half(bits);
        }
        store_channels(y + static_cast<long long>(group + i) * CHANNELS,
                       pack(silu(low), silu(high)));
#pragma unroll
        for (int row = 0; row + 1 < WINDOW; ++row) past[row] = past[row + 1];
        past[WINDOW - 1] = now[i];
      }
    }
  }
}
