// The next step's input ids, from the tokens that were chosen last.
#pragma once

// ids [count] get the token of slots [count]; those with a negative slot stay as they are.
extern "C" __global__ void __launch_bounds__(128)
    feed_tokens(const long long* tokens, const int* slots, long long* ids, int count) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count && slots[i] >= 0) ids[i] = tokens[slots[i]];
}
