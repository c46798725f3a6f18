// The time step of a head at a token, and how the state decays over it.
#pragma once

struct HeadRates {
  const float* dt_bias;  // [heads]
  const float* decay;    // [heads]: A < 0
  const float* skip;     // [heads]: D
  float dt_min, dt_max;
};

__device__ __forceinline__ float softplus(float value) {
  return value > 20.0f ? value : log1pf(expf(value));
}

__device__ __forceinline__ float time_step(float raw, float bias, float dt_min, float dt_max) {
  return fminf(fmaxf(softplus(raw + bias), dt_min), dt_max);
}
