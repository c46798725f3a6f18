// Mamba-2: the causal convolution and the recurrence, token after token, on the slot's own state.
#pragma once

#include "rows.h"

namespace {

constexpr int CHANNEL_BLOCK = 64;

// Of drafts (drafts.h): the inputs of a convolution are noted, and a head's state stays as it is.
void note_inputs(const Machine& machine, const Op& op, int slot, const float* in, int64_t in_stride, int count,
                 int channel, int width);
template <typename S>
void scan_draft(const Machine& machine, const Op& op, const Sequence& sequence, int first, int head,
                const float* decays, const float* steps, const S* state, float skip, float* scratch);

// Eight channels (or `lanes` at the edge) of one sequence; `window` is [kernel - 1, channels], which a
// draft leaves as it is.
template <int KERNEL>
INLINE void convolve(const float* weight, const float* bias, float* window, int channels, int kernel,
                     const float* in, int64_t in_stride, float* out, int64_t out_stride,
                     const Sequence& sequence, int lanes) {
  int taps = (KERNEL ? KERNEL : kernel) - 1;
  Vec past[KERNEL ? KERNEL : MAX_CONV_KERNEL], weights[KERNEL ? KERNEL : MAX_CONV_KERNEL];
  for (int j = 0; j < taps; j++) past[j] = load(window + j * channels, lanes);
  for (int j = 0; j <= taps; j++) weights[j] = load(weight + j * channels, lanes);
  Vec start = load(bias, lanes);
  for (int t = 0; t < sequence.count; t++) {
    Vec x = load(in + t * in_stride, lanes);
    Vec y = weights[taps] * x + start;
    for (int j = taps - 1; j >= 0; j--) y = weights[j] * past[j] + y;
    store(out + t * out_stride, silu(y), lanes);
    for (int j = 0; j + 1 < taps; j++) past[j] = past[j + 1];
    past[taps - 1] = x;
  }
  for (int j = 0; j < taps && !sequence.is_draft; j++) store(window + j * channels, past[j], lanes);
}

INLINE int channel_blocks(const Op& op) {
  return (op.target.width + CHANNEL_BLOCK - 1) / CHANNEL_BLOCK;
}

// One job is a sequence and a block of channels.
void causal_conv(const Machine& machine, const Step& step, const Op& op, Range jobs) {
  const StateSpec& state = machine.states[op.states[0]];
  const float *weight = values(machine, op.tensors[0]), *bias = values(machine, op.tensors[1]);
  int channels = op.target.width, kernel = op.sizes[0];
  int blocks = channel_blocks(op);
  int64_t in_stride = machine.buffers[op.sources[0].buffer].stride;
  int64_t out_stride = machine.buffers[op.target.buffer].stride;
  for (int job = jobs.first; job < jobs.last; job++) {
    int s = job / blocks, first = job % blocks * CHANNEL_BLOCK;
    const Sequence& sequence = step.sequences[s];
    float* window = (float*)state.data + sequence.slot * state.slot_elements;
    const float* in = row_of(machine, op.sources[0], step.starts[s]);
    float* out = target_row(machine, op, step.starts[s]);
    if (sequence.is_draft)  // before they are overwritten
      note_inputs(machine, op, sequence.slot, in + first, in_stride, sequence.count, first,
                  least(CHANNEL_BLOCK, channels - first));
    for (int c = first; c < least(channels, first + CHANNEL_BLOCK); c += LANES) {
      int lanes = least(LANES, channels - c);
      if (kernel == 4)
        convolve<4>(weight + c, bias + c, window + c, channels, 4, in + c, in_stride, out + c,
                    out_stride, sequence, lanes);
      else
        convolve<0>(weight + c, bias + c, window + c, channels, kernel, in + c, in_stride, out + c,
                    out_stride, sequence, lanes);
    }
  }
}

constexpr int SCAN_TOKENS = MAX_DRAFT;  // whose decays are computed together
constexpr int PREFETCH_ROWS = 12;
constexpr int LINE_BYTES = 64;

// R rows of one head's state, [R, size]: state = decay * state + x B; y = C state + D x.
template <int R, bool FULL, typename S>
INLINE void advance(S* state, int size, float decay, const float* x, float dt, const float* b,
                    const float* c, float skip, float* y, bool prefetches) {
  Vec in[R], sums[R], d = splat(decay);
  UNROLL for (int r = 0; r < R; r++) {
    in[r] = splat(x[r] * dt);
    sums[r] = splat(0);
  }
  for (int k = 0; k < size; k += LANES) {
    int n = FULL ? LANES : size - k;
    Vec bv = load(b + k, n), cv = load(c + k, n);
    UNROLL for (int r = 0; r < R; r++) {
      S* place = state + r * size + k;
      if (prefetches && k * sizeof(S) % LINE_BYTES == 0) __builtin_prefetch(place + PREFETCH_ROWS * size, 1);
      Vec next = bv * in[r] + d * load(place, n);
      store(place, next, n);
      sums[r] = next * cv + sums[r];
    }
  }
  UNROLL for (int r = 0; r < R; r++) y[r] = sum(sums[r]) + skip * x[r];
}

template <int R, typename S>
INLINE void scan_rows(const Machine& machine, const Op& op, int first, int count, int head, int row,
                      const float* decays, const float* steps, S* state, float skip) {
  int head_dim = op.sizes[1], size = op.sizes[2], group = head / (op.sizes[0] / op.sizes[3]);
  int64_t column = (int64_t)head * head_dim + row;
  for (int t = 0; t < count; t++) {
    const float* x = row_of(machine, op.sources[0], first + t) + column;
    const float* b = row_of(machine, op.sources[1], first + t) + group * size;
    const float* c = row_of(machine, op.sources[2], first + t) + group * size;
    float* y = target_row(machine, op, first + t) + column;
    if (size % LANES == 0)
      advance<R, true>(state, size, decays[t], x, steps[t], b, c, skip, y, false);
    else
      advance<R, false>(state, size, decays[t], x, steps[t], b, c, skip, y, false);
  }
}

// One token: the state comes from memory, in the order in which it lies there. Rows side by side took
// twice as long (benchmarks/kernels/state_passes.cpp).
template <typename S>
INLINE void scan_token(const Machine& machine, const Op& op, int token, int head, float decay, float dt, S* state,
                       float skip) {
  int head_dim = op.sizes[1], size = op.sizes[2], group = head / (op.sizes[0] / op.sizes[3]);
  const float* x = row_of(machine, op.sources[0], token) + (int64_t)head * head_dim;
  const float* b = row_of(machine, op.sources[1], token) + group * size;
  const float* c = row_of(machine, op.sources[2], token) + group * size;
  float* y = target_row(machine, op, token) + (int64_t)head * head_dim;
  for (int row = 0; row < head_dim; row++, state += size)
    if (size % LANES == 0) advance<1, true>(state, size, decay, x + row, dt, b, c, skip, y + row, true);
    else advance<1, false>(state, size, decay, x + row, dt, b, c, skip, y + row, false);
}

INLINE float softplus(float x) { return x > 20 ? x : log1pf(expf(x)); }

// One job is a sequence and a head; S is the type of the state's elements.
template <typename S>
void scan_as(const Machine& machine, const Step& step, const Op& op, Range jobs, float* scratch) {
  const StateSpec& states = machine.states[op.states[0]];
  const float *bias = values(machine, op.tensors[0]), *rate = values(machine, op.tensors[1]),
              *skip = values(machine, op.tensors[2]);
  int heads = op.sizes[0], head_dim = op.sizes[1], size = op.sizes[2];
  for (int job = jobs.first; job < jobs.last; job++) {
    int s = job / heads, head = job % heads;
    const Sequence& sequence = step.sequences[s];
    S* state = (S*)states.data + sequence.slot * states.slot_elements + (int64_t)head * head_dim * size;
    float decays[SCAN_TOKENS], steps[SCAN_TOKENS];
    for (int done = 0; done < sequence.count; done += SCAN_TOKENS) {
      int first = step.starts[s] + done, count = least(SCAN_TOKENS, sequence.count - done);
      for (int t = 0; t < count; t++) {
        float dt = softplus(row_of(machine, op.sources[3], first + t)[head] + bias[head]);
        dt = dt < op.reals[0] ? op.reals[0] : dt > op.reals[1] ? op.reals[1] : dt;
        steps[t] = dt;
        decays[t] = expf(dt * rate[head]);
      }
      if (sequence.is_draft) {  // of SCAN_TOKENS at most
        scan_draft(machine, op, sequence, first, head, decays, steps, state, skip[head], scratch);
        break;
      }
      if (sequence.count == 1) {
        scan_token(machine, op, first, head, decays[0], steps[0], state, skip[head]);
        break;
      }
      int row = 0;
      for (; row + 4 <= head_dim; row += 4)
        scan_rows<4>(machine, op, first, count, head, row, decays, steps,
                     state + (int64_t)row * size, skip[head]);
      for (; row < head_dim; row++)
        scan_rows<1>(machine, op, first, count, head, row, decays, steps,
                     state + (int64_t)row * size, skip[head]);
    }
  }
}

void scan(const Machine& machine, const Step& step, const Op& op, Range jobs, float* scratch) {
  if (machine.states[op.states[0]].format == FLOAT16)
    return scan_as<uint16_t>(machine, step, op, jobs, scratch);
  return scan_as<float>(machine, step, op, jobs, scratch);
}

}  // namespace
