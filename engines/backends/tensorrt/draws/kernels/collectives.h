// What the threads of a warp or a block find out together. A block is of whole warps.
#pragma once

#include "turn.h"

constexpr unsigned ALL = 0xffffffffu;

__device__ __forceinline__ int lane_of() { return threadIdx.x % LANES; }
__device__ __forceinline__ int warp_of() { return threadIdx.x / LANES; }
__device__ __forceinline__ int num_warps() { return blockDim.x / LANES; }

__device__ __forceinline__ float greatest(float value) {
#pragma unroll
  for (int distance = LANES / 2; distance; distance /= 2) {
    const float other = __shfl_xor_sync(ALL, value, distance);
    value = other > value ? other : value;
  }
  return value;
}

__device__ __forceinline__ u64 sum(u64 value) {
#pragma unroll
  for (int distance = LANES / 2; distance; distance /= 2)
    value += __shfl_xor_sync(ALL, value, distance);
  return value;
}

// The sum over this lane and those before it.
__device__ __forceinline__ u64 running_sum(u64 value) {
#pragma unroll
  for (int distance = 1; distance < LANES; distance *= 2) {
    const u64 other = __shfl_up_sync(ALL, value, distance);
    if (lane_of() >= distance) value += other;
  }
  return value;
}

// The greatest of a turn's scores, in each lane.
__device__ __forceinline__ float greatest_of(const float* most, int count) {
  float value = -infinity();
  for (int i = lane_of(); i < count; i += LANES) value = most[i] > value ? most[i] : value;
  return greatest(value);
}

constexpr int PARTS = MAX_SLICES;  // of a slice each, or of a tenth of a weight's bits
static_assert(PARTS == 1 << 10, "a part is told by ten bits");

// A block's shared memory.
struct Board {
  u64 parts[PARTS];
  u64 warps[MAX_THREADS / LANES];
  u64 before, value;
  int part;
};

// One of the parts, and the sum of those before it.
struct Place {
  int part;  // PARTS if there is none
  u64 before, value;
};

// Nobody reads parts any more: what reads them, below, ends with a barrier behind that.
__device__ __forceinline__ void clear(Board& board) {
  for (int i = threadIdx.x; i < PARTS; i += blockDim.x) board.parts[i] = 0;
  __syncthreads();
}

// The sum of all parts.
__device__ __forceinline__ u64 sum_of(Board& board) {
  u64 own = 0;
  for (int i = threadIdx.x; i < PARTS; i += blockDim.x) own += board.parts[i];
  own = sum(own);
  if (lane_of() == 0) board.warps[warp_of()] = own;
  __syncthreads();
  own = lane_of() < num_warps() ? board.warps[lane_of()] : 0;
  own = sum(own);
  __syncthreads();  // all have read
  return own;
}

// The first part at which the running sum reaches `target`, which is above 0.
__device__ __forceinline__ Place find(Board& board, u64 target) {
  const int each = (PARTS + blockDim.x - 1) / blockDim.x;
  const int begin = min(static_cast<int>(threadIdx.x) * each, PARTS);
  const int end = min(begin + each, PARTS);
  u64 own = 0;
  for (int i = begin; i < end; ++i) own += board.parts[i];
  const u64 upto = running_sum(own);
  if (lane_of() == LANES - 1) board.warps[warp_of()] = upto;
  if (threadIdx.x == 0) board.part = PARTS;
  __syncthreads();
  u64 before = upto - own;
  for (int i = 0; i < warp_of(); ++i) before += board.warps[i];
  if (before < target && target <= before + own) {
    int i = begin;
    for (; before + board.parts[i] < target; ++i) before += board.parts[i];
    board.part = i, board.before = before, board.value = board.parts[i];
  }
  __syncthreads();
  return {board.part, board.before, board.value};
}
