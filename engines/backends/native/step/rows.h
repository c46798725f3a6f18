// Operations on one row of activations each; the result goes straight into an operand.
#pragma once

#include "lora.h"
#include "operand.h"

namespace {

INLINE const float* row_of(const Machine& machine, const View& view, int row) {
  const Buffer& buffer = machine.buffers[view.buffer];
  return buffer.rows + (int64_t)row * buffer.stride + view.column;
}
INLINE float* target_row(const Machine& machine, const Op& op, int row) {
  const Buffer& buffer = machine.buffers[op.target.buffer];
  return buffer.rows + (int64_t)row * buffer.stride + op.target.column;
}
INLINE const float* values(const Machine& machine, int tensor) {
  return (const float*)machine.tensors[tensor].data;
}

INLINE void rms_norm(const float* x, const float* weight, int width, float eps, float* out) {
  Vec squares = splat(0);
  for (int k = 0; k < width; k += LANES) {
    Vec v = load(x + k, width - k);
    squares = v * v + squares;
  }
  float scale = 1.f / sqrtf(sum(squares) / width + eps);
  for (int k = 0; k < width; k += LANES) {
    int n = width - k;
    store(out + k, load(x + k, n) * scale * load(weight + k, n), n);
  }
}

// silu(gate) * x, then RMS of each group, then the weight.
INLINE void gated_norm(const float* x, const float* gate, const float* weight, int width, int groups,
                       float eps, float* out) {
  int size = width / groups;
  for (int g = 0; g < groups; g++) {
    int start = g * size;
    for (int k = 0; k < size; k += LANES) {
      int n = size - k, at = start + k;
      store(out + at, load(x + at, n) * silu(load(gate + at, n)), n);
    }
    rms_norm(out + start, weight + start, size, eps, out + start);
  }
}

// The sum of a token's experts by their weights, in the order of its choice (experts.h).
INLINE void mix(const float* pairs, int64_t stride, const float* weights, int chosen, int width, float* out) {
  for (int c = 0; c < width; c += LANES) {
    int n = width - c;
    Vec sum = splat(0);
    for (int k = 0; k < chosen; k++) sum = load(pairs + k * stride + c, n) * weights[k] + sum;
    store(out + c, sum, n);
  }
}

INLINE void row_result(const Machine& machine, const Op& op, int row, float* out) {
  const float* x = row_of(machine, op.sources[0], row);
  int width = op.sources[0].width;
  switch (op.kind) {
    case NORM:
      return rms_norm(x, values(machine, op.tensors[0]), width, op.reals[0], out);
    case GATED_NORM:
      return gated_norm(x, row_of(machine, op.sources[1], row), values(machine, op.tensors[0]), width,
                        op.sizes[0], op.reals[0], out);
    case RELU2:
      for (int k = 0; k < width; k += LANES) {
        Vec v = max(load(x + k, width - k), splat(0));
        store(out + k, v * v, width - k);
      }
      return;
    case SWIGLU: {
      const float* up = row_of(machine, op.sources[1], row);
      for (int k = 0; k < width; k += LANES) {
        int n = width - k;
        store(out + k, silu(load(x + k, n)) * load(up + k, n), n);
      }
      return;
    }
    case MIX:
      return mix(x, width / op.sizes[0], row_of(machine, op.sources[1], row) + op.sizes[0], op.sizes[0],
                 op.target.width, out);
    default:  // PACK
      memcpy(out, x, width * sizeof(float));
  }
}

INLINE void put_row(const Machine& machine, const Op& op, int row, const float* x) {
  float* out = target_row(machine, op, row);
  bool adds = op.kind == MIX && op.sizes[1];
  for (int k = 0; k < op.target.width; k += LANES) {
    int n = op.target.width - k;
    store(out + k, adds ? load(out + k, n) + load(x + k, n) : load(x + k, n), n);
  }
}

// One job is a group of tokens, whose operand is interleaved: no two threads write one cache line.
void row_operation(const Machine& machine, const Step& step, const Op& op, int rows, Range groups, float* scratch) {
  const Buffer& target = machine.buffers[op.target.buffer];
  for (int group = groups.first; group < groups.last; group++) {
    int first = first_of(group, rows), end = first_of(group + 1, rows);
    for (int row = first; row < end; row++) {
      row_result(machine, op, row, scratch);
      if (target.format == ROWS) {
        put_row(machine, op, row, scratch);
        continue;
      }
      if (step.has_adapters) lora_down(machine, step, op, row, scratch);
      pack(target, scratch, op.target.width, row, {first, end - first});
    }
  }
}

void embed(const Machine& machine, const Step& step, const Op& op, Range rows) {
  const Tensor& table = machine.tensors[op.tensors[0]];
  int64_t width = op.target.width;
  for (int row = rows.first; row < rows.last; row++) {
    float* out = target_row(machine, op, row);
    int64_t first = step.tokens[row] * width;
    if (table.kind == VALUES) {
      memcpy(out, (const float*)table.data + first, width * sizeof(float));
      continue;
    }
    const uint16_t* codes = (const uint16_t*)table.data + first;
    for (int k = 0; k < width; k++) out[k] = bf16_to_float(codes[k]);
  }
}

void last_token(const Machine& machine, const Step& step, const Op& op, Range rows) {
  for (int row = rows.first; row < rows.last; row++)
    memcpy(target_row(machine, op, row), row_of(machine, op.sources[0], step.logits_rows[row]),
           op.target.width * sizeof(float));
}

}  // namespace
