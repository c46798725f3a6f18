// Causal grouped-query attention over the slot's own cache, [kv_heads, max_seq_len, head_dim].
#pragma once

#include "rows.h"

namespace {

constexpr int KEY_BLOCK = 64;

INLINE float* cache_of(const Machine& machine, const StateSpec& state, int slot, int head, int depth) {
  return (float*)state.data + slot * state.slot_elements + (int64_t)head * machine.max_seq_len * depth;
}

// Normalizes and rotates one head of a query or key as the model asks; `out` may be `x`.
INLINE void place_head(const Machine& machine, const Op& op, const float* x, int norm, int position,
                       float* out) {
  int depth = op.sizes[2], half = depth / 2;
  if (norm >= 0)
    rms_norm(x, values(machine, norm), depth, op.reals[0], out);
  else if (out != x)
    memcpy(out, x, depth * sizeof(float));
  if (op.tensors[2] < 0) return;
  const float* cosine = values(machine, op.tensors[2]) + (int64_t)position * half;
  const float* sine = values(machine, op.tensors[3]) + (int64_t)position * half;
  for (int k = 0; k < half; k += LANES) {
    int n = half - k;
    Vec a = load(out + k, n), b = load(out + half + k, n), c = load(cosine + k, n), s = load(sine + k, n);
    store(out + k, a * c - b * s, n);
    store(out + half + k, b * c + a * s, n);
  }
}

// Queries in place, keys and values into the cache.
void place_heads(const Machine& machine, const Step& step, const Op& op, Range rows) {
  int q_heads = op.sizes[0], kv_heads = op.sizes[1], depth = op.sizes[2];
  for (int row = rows.first; row < rows.last; row++) {
    int owner = step.owners[row];
    const Sequence& sequence = step.sequences[owner];
    int position = sequence.past + row - step.starts[owner];
    float* q = const_cast<float*>(row_of(machine, op.sources[0], row));
    const float *k = row_of(machine, op.sources[1], row), *v = row_of(machine, op.sources[2], row);
    for (int h = 0; h < q_heads; h++)
      place_head(machine, op, q + h * depth, op.tensors[0], position, q + h * depth);
    for (int h = 0; h < kv_heads; h++) {
      int64_t at = (int64_t)position * depth;
      float* key = cache_of(machine, machine.states[op.states[0]], sequence.slot, h, depth) + at;
      place_head(machine, op, k + h * depth, op.tensors[1], position, key);
      memcpy(cache_of(machine, machine.states[op.states[1]], sequence.slot, h, depth) + at,
             v + h * depth, depth * sizeof(float));
    }
  }
}

struct Softmax {
  float peak, total;
};

// Adds a block of keys to one query head's running softmax; `acc` is [depth rounded up to 8].
INLINE void attend_block(const float* q, const float* keys, const float* vals, int count, int depth,
                         float scale, Softmax& softmax, float* acc) {
  float scores[KEY_BLOCK];
  float peak = softmax.peak;
  for (int j = 0; j < count; j++) {
    const float* key = keys + (int64_t)j * depth;
    Vec dot = splat(0);
    for (int k = 0; k < depth; k += LANES) dot = load(q + k, depth - k) * load(key + k, depth - k) + dot;
    scores[j] = sum(dot) * scale;
    peak = scores[j] > peak ? scores[j] : peak;
  }
  for (int j = count; j < KEY_BLOCK; j++) scores[j] = -INFINITY;
  if (peak > softmax.peak) {
    float factor = expf(softmax.peak - peak);
    softmax = {peak, softmax.total * factor};
    for (int k = 0; k < depth; k += LANES) store(acc + k, load(acc + k) * factor);
  }
  for (int j = 0; j < count; j += LANES) store(scores + j, exponential(load(scores + j) - peak));
  for (int j = 0; j < count; j++) softmax.total += scores[j];
  for (int k = 0; k < depth; k += 4 * LANES) {
    Vec sums[4];
    int vectors = least(4, (depth - k + LANES - 1) / LANES);
    for (int i = 0; i < vectors; i++) sums[i] = load(acc + k + i * LANES);
    if (depth - k >= 4 * LANES) {
      for (int j = 0; j < count; j++) {
        const float* value = vals + (int64_t)j * depth + k;
        UNROLL for (int i = 0; i < 4; i++) sums[i] = scores[j] * load(value + i * LANES) + sums[i];
      }
    } else {
      for (int j = 0; j < count; j++) {
        const float* value = vals + (int64_t)j * depth + k;
        for (int i = 0; i < vectors; i++)
          sums[i] = scores[j] * load(value + i * LANES, depth - k - i * LANES) + sums[i];
      }
    }
    for (int i = 0; i < vectors; i++) store(acc + k + i * LANES, sums[i]);
  }
}

// One job is a token and a KV head: its query heads share the keys while they are in cache.
void attend(const Machine& machine, const Step& step, const Op& op, Range jobs, float* scratch) {
  int q_heads = op.sizes[0], kv_heads = op.sizes[1], depth = op.sizes[2], shared = q_heads / kv_heads;
  int padded = (int)round_up(depth, LANES);
  float scale = 1.f / sqrtf((float)depth);
  float *accs = scratch, *softmaxes = scratch + (int64_t)shared * padded;
  for (int job = jobs.first; job < jobs.last; job++) {
    int row = job / kv_heads, head = job % kv_heads, owner = step.owners[row];
    const Sequence& sequence = step.sequences[owner];
    int held = sequence.past + row - step.starts[owner] + 1;
    const float* keys = cache_of(machine, machine.states[op.states[0]], sequence.slot, head, depth);
    const float* vals = cache_of(machine, machine.states[op.states[1]], sequence.slot, head, depth);
    const float* q = row_of(machine, op.sources[0], row) + head * shared * depth;
    memset(accs, 0, (int64_t)shared * padded * sizeof(float));
    for (int h = 0; h < shared; h++) softmaxes[2 * h] = -1e30f, softmaxes[2 * h + 1] = 0;
    for (int first = 0; first < held; first += KEY_BLOCK) {
      int count = least(KEY_BLOCK, held - first);
      for (int h = 0; h < shared; h++) {
        Softmax softmax = {softmaxes[2 * h], softmaxes[2 * h + 1]};
        attend_block(q + h * depth, keys + (int64_t)first * depth, vals + (int64_t)first * depth, count,
                     depth, scale, softmax, accs + h * padded);
        softmaxes[2 * h] = softmax.peak, softmaxes[2 * h + 1] = softmax.total;
      }
    }
    float* out = target_row(machine, op, row) + head * shared * depth;
    for (int h = 0; h < shared; h++)
      for (int k = 0; k < depth; k += LANES)
        store(out + h * depth + k, load(accs + h * padded + k) * (1.f / softmaxes[2 * h + 1]), depth - k);
  }
}

}  // namespace
