// Linears with bf16 weights on AMX's tiles, for any number of tokens: their float32 sums have other bits
// than float_tile's, so a token must have them in every batch.
//
// A float32 input is exactly the sum of three bf16, its significand cut into three times 8 bits. For
// each 32 inputs their products with the weights are added one part after the other, in one chain.
#pragma once

#include "tile.h"

namespace {

constexpr int INPUT_PARTS = 3;
constexpr int TILE_INPUTS = 32, TILE_CODES = MATRIX_TOKENS * TILE_INPUTS;
constexpr int BF16_DEPTH = DEPTH_BLOCK / 4;  // inputs whose parts a thread holds for all tokens
static_assert(4 * BF16_DEPTH == DEPTH_BLOCK && BF16_DEPTH % TILE_INPUTS == 0 && PANEL == 16,
              "a thread's memory (matrix_elements) holds the parts of all tokens and two panels");

INLINE uint32_t bits_of(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}
INLINE float cut_to_bf16(float x) {
  uint32_t bits = bits_of(x) & 0xffff0000u;
  float cut;
  memcpy(&cut, &bits, sizeof cut);
  return cut;
}

// One token's inputs as parts, in its row of the tiles [inputs / 32][parts]; `x` is `step` floats from
// one input to the next. NaN and infinity stay what they are, with no parts but the first.
void split_inputs(const float* x, int step, int depth, uint16_t* out) {
  alignas(64) float row[BF16_DEPTH];
  int end = (int)round_up(depth, TILE_INPUTS);
  for (int k = 0; k < depth; k++) row[k] = x[(int64_t)k * step];
  for (int k = depth; k < end; k++) row[k] = 0;
  for (int k = 0; k < end; k += TILE_INPUTS, out += INPUT_PARTS * TILE_CODES)
    for (int i = 0; i < TILE_INPUTS; i++) {
      float value = row[k + i], high = cut_to_bf16(value), rest = value - high;
      bool is_finite = (bits_of(value) & 0x7f800000u) != 0x7f800000u, is_nan = value != value;
      rest = is_finite ? rest : 0;
      float middle = cut_to_bf16(rest);
      out[i] = (uint16_t)(bits_of(value) >> 16 | (is_nan ? 0x40u : 0u));
      out[TILE_CODES + i] = (uint16_t)(bits_of(middle) >> 16);
      out[2 * TILE_CODES + i] = (uint16_t)(bits_of(rest - middle) >> 16);
    }
}

// A panel's weights of a block in rows of pairs of inputs.
void pair_weights(const uint16_t* weight, int depth, uint32_t* out) {
  int end = (int)round_up(depth, TILE_INPUTS), k = 0;
  for (; k < depth; k += 2, weight += 2 * PANEL, out += PANEL) {
    __builtin_prefetch((const char*)weight + PREFETCH_BYTES);
    for (int r = 0; r < PANEL; r++) out[r] = weight[r] | (uint32_t)weight[PANEL + r] << 16;
  }
  memset(out, 0, (size_t)(end - k) / 2 * PANEL * sizeof *out);
}

#if HAS_TILES
// Sums of one or two tiles of tokens times two panels; the weights of each are `panel_step` apart.
template <bool HAS_SECOND>
void multiply_parts(const uint16_t* first, const uint16_t* second, const uint32_t* weights, int64_t panel_step,
                    int count, float (&sums)[4][MATRIX_TOKENS][PANEL]) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int i = 0; i < count; i++, weights += TILE_CODES / 2) {
    _tile_loadd(4, weights, ROW_BYTES);
    _tile_loadd(5, weights + panel_step, ROW_BYTES);
    for (int part = 0; part < INPUT_PARTS; part++, first += TILE_CODES, second += TILE_CODES) {
      _tile_loadd(6, first, ROW_BYTES);
      _tile_dpbf16ps(0, 6, 4);
      _tile_dpbf16ps(1, 6, 5);
      if (!HAS_SECOND) continue;
      _tile_loadd(7, second, ROW_BYTES);
      _tile_dpbf16ps(2, 7, 4);
      _tile_dpbf16ps(3, 7, 5);
    }
  }
  _tile_stored(0, sums[0], ROW_BYTES);
  _tile_stored(1, sums[1], ROW_BYTES);
  if (!HAS_SECOND) return;
  _tile_stored(2, sums[2], ROW_BYTES);
  _tile_stored(3, sums[3], ROW_BYTES);
}

// target (+)= operand x weight^T over some panels of the weight.
void bf16_linear(const Machine& machine, const Op& op, int rows, Range panels, float* scratch) {
  const Tensor& weight = machine.tensors[op.tensors[0]];
  const Buffer &operand = machine.buffers[op.sources[0].buffer], &target = machine.buffers[op.target.buffer];
  int depth = (int)round_up(weight.columns, PANEL);
  int64_t panel_step = BF16_DEPTH / 2 * PANEL;
  uint16_t* parts = (uint16_t*)scratch;
  uint32_t* weights = (uint32_t*)(parts + round_up(rows, MATRIX_TOKENS) * BF16_DEPTH * INPUT_PARTS);
  alignas(64) float sums[4][MATRIX_TOKENS][PANEL];
  for (int start = 0; start < depth; start += BF16_DEPTH) {
    int size = least(BF16_DEPTH, depth - start), count = (size + TILE_INPUTS - 1) / TILE_INPUTS;
    int64_t tile_step = (int64_t)count * INPUT_PARTS * TILE_CODES;
    for (int group = 0; group < groups_of(rows); group++) {
      int first = first_of(group, rows), tokens = first_of(group + 1, rows) - first;
      const float* x = operand.rows + (int64_t)first * depth + (int64_t)start * tokens;
      for (int t = 0; t < tokens; t++) {
        int row = first + t;
        split_inputs(x + t, tokens, size, parts + row / MATRIX_TOKENS * tile_step + row % MATRIX_TOKENS * TILE_INPUTS);
      }
    }
    for (int p = panels.first; p < panels.last; p += 2) {
      int num_panels = least(2, panels.last - p);
      for (int i = 0; i < num_panels; i++)
        pair_weights((const uint16_t*)weight.data + ((int64_t)(p + i) * depth + start) * PANEL, size,
                     weights + i * panel_step);
      for (int first = 0; first < rows; first += 2 * MATRIX_TOKENS) {
        const uint16_t* one = parts + first / MATRIX_TOKENS * tile_step;
        bool has_second = first + MATRIX_TOKENS < rows;
        if (has_second) multiply_parts<true>(one, one + tile_step, weights, panel_step, count, sums);
        else multiply_parts<false>(one, one, weights, panel_step, count, sums);
        for (int t = 0; t < least(2 * MATRIX_TOKENS, rows - first); t++)
          for (int i = 0; i < num_panels; i++) {
            const float* sum = sums[t / MATRIX_TOKENS * 2 + i][t % MATRIX_TOKENS];
            float* out = target.rows + op.target.column + (int64_t)(first + t) * target.stride + (p + i) * PANEL;
            for (int v = 0; v < PANEL; v += LANES) put(out + v, load(sum + v), op.sizes[0] != 0 || start > 0);
          }
      }
    }
  }
}
#endif

}  // namespace
