// Adapters of linears: y += up (down x), in float32, for the rows whose sequence has one.
//
// down x is formed where x is at hand as a row of floats, before it is packed for the weight: so it is the
// same whatever the weight's format. A row's sums depend on nothing but the row, its adapter and the
// instruction set, so a result is the same bits in any batch; a row without adapter is not touched.
#pragma once

#include "program.h"
#include "vector.h"

namespace {
using namespace nemotrt;

// The adapter of an operation's row, -1 for none.
INLINE int adapter_of(const Step& step, const Op& op, int row) {
  int token = op.rows == TOKENS ? row : step.logits_rows[row];
  return step.sequences[step.owners[token]].adapter - 1;
}

INLINE const Lora& lora_of(const Machine& machine, int op, int adapter) {
  return machine.adapters.loras[(int64_t)op * machine.adapters.count + adapter];
}

// Products of x with R rows of `width` columns, which are padded with zeros to a panel.
template <int R>
INLINE void dots(const float* x, const float* down, int64_t stride, int width, float* out) {
  Vec sums[R];
  UNROLL for (int r = 0; r < R; r++) sums[r] = splat(0);
  for (int k = 0; k < width; k += LANES) {
    Vec v = load(x + k, width - k);
    UNROLL for (int r = 0; r < R; r++) sums[r] = load(down + r * stride + k) * v + sums[r];
  }
  UNROLL for (int r = 0; r < R; r++) out[r] = sum(sums[r]);
}

// Keeps down x of the linears that read this row, for its adapter.
void lora_down(const Machine& machine, const Step& step, const Op& op, int row, const float* x) {
  int adapter = adapter_of(step, op, row), writer = (int)(&op - machine.ops);
  if (adapter < 0) return;
  const Adapters& all = machine.adapters;
  int width = op.target.width;
  int64_t stride = round_up(width, PANEL);
  for (int i = all.starts[writer]; i < all.starts[writer + 1]; i++) {
    const Lora& lora = lora_of(machine, all.readers[i], adapter);
    const Inner& inner = all.inner[all.readers[i]];
    float* out = inner.rows + (int64_t)row * inner.stride;
    int r = 0;
    for (; r + 4 <= lora.rank; r += 4) dots<4>(x, lora.down + r * stride, stride, width, out + r);
    for (; r < lora.rank; r++) dots<1>(x, lora.down + r * stride, stride, width, out + r);
  }
}

// Adds up (down x) to some panels of a linear's target.
void lora_up(const Machine& machine, const Step& step, const Op& op, int rows, Range panels) {
  int index = (int)(&op - machine.ops);
  const Inner& inner = machine.adapters.inner[index];
  if (!inner.rows) return;
  const Buffer& target = machine.buffers[op.target.buffer];
  int64_t stride = round_up(op.target.width, PANEL);
  for (int row = 0; row < rows; row++) {
    int adapter = adapter_of(step, op, row);
    if (adapter < 0) continue;
    const Lora& lora = lora_of(machine, index, adapter);
    if (!lora.rank) continue;
    const float* within = inner.rows + (int64_t)row * inner.stride;
    float* y = target.rows + (int64_t)row * target.stride + op.target.column;
    for (int c = panels.first * PANEL; c < panels.last * PANEL; c += LANES) {
      Vec total = splat(0);
      for (int r = 0; r < lora.rank; r++) total = load(lora.up + r * stride + c) * within[r] + total;
      store(y + c, load(y + c) + total);
    }
  }
}

}  // namespace
