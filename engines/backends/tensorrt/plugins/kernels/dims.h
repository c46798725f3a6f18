// The model's dimensions, given to the compiler by kernel_dims.py as NEMOTRT_*.
#pragma once

constexpr int HEADS = NEMOTRT_HEADS;              // heads of the scan
constexpr int HEAD_DIM = NEMOTRT_HEAD_DIM;        // channels of a head
constexpr int STATE = NEMOTRT_STATE;              // states of a channel
constexpr int GROUPS = NEMOTRT_GROUPS;            // heads of one group share B and C
constexpr int CONV_KERNEL = NEMOTRT_CONV_KERNEL;  // taps of the convolution

constexpr int INNER = HEADS * HEAD_DIM;
constexpr int CHANNELS = INNER + 2 * GROUPS * STATE;  // x, B, C: what the convolution sees
constexpr int WIDTH = INNER + CHANNELS + HEADS;       // a row of in_proj's result: z, x, B, C, dt
constexpr int CONV_OFFSET = INNER;
constexpr int DT_OFFSET = INNER + CHANNELS;

__host__ __device__ constexpr int round_up(int value, int step) {
  return (value + step - 1) / step * step;
}

// A sequence's new tokens, never out of range: TensorRT times kernels on inputs that mean nothing.
__device__ __forceinline__ int new_tokens(const long long* lengths, int sequence, int tokens) {
  const long long length = lengths[sequence];
  return length < 0 ? 0 : length > tokens ? tokens : static_cast<int>(length);
}
