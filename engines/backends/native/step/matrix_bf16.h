// Linears with bf16 weights on AMX's tiles, for any number of tokens: their float32 sums have other bits
// than float_tile's, so a token must have them in every batch.
//
// A float32 input is exactly the sum of three bf16, its significand cut into three times 8 bits. For
// each 32 inputs their products with the weights are added to sums of each part, which are added at last.
#pragma once

#include "tile.h"

namespace {

constexpr int INPUT_PARTS = 3;
constexpr int TILE_INPUTS = 32, TILE_CODES = MATRIX_TOKENS * TILE_INPUTS;
constexpr int BF16_DEPTH = DEPTH_BLOCK / 4;  // inputs of one chain, whose parts a thread holds for all tokens
static_assert(4 * BF16_DEPTH == DEPTH_BLOCK && BF16_DEPTH % TILE_INPUTS == 0 && PANEL == 16,
              "a thread's memory (matrix_elements) holds the parts of all tokens");

INLINE uint32_t bits_of(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}
INLINE uint16_t bf16_of(float x) { return (uint16_t)(bits_of(x) >> 16); }  // cut, not rounded

// One token's inputs as parts, in its row of the tiles [inputs / 32][parts], each of `tile` codes; `x` is
// `step` floats from one input to the next. NaN and infinity stay what they are, with no parts but the first.
void split_inputs(const float* x, int step, int depth, int tile, uint16_t* out) {
  for (int start = 0; start < depth; start += BF16_DEPTH) {
    alignas(64) float row[BF16_DEPTH];
    int size = least(BF16_DEPTH, depth - start), end = (int)round_up(size, TILE_INPUTS);
    for (int k = 0; k < size; k++) row[k] = x[(int64_t)(start + k) * step];
    for (int k = size; k < end; k++) row[k] = 0;
    for (int k = 0; k < end; k += TILE_INPUTS, out += INPUT_PARTS * tile)
      for (int i = 0; i < TILE_INPUTS; i++) {
        float value = row[k + i], high = bf16_to_float(bf16_of(value)), rest = value - high;
        bool is_finite = (bits_of(value) & 0x7f800000u) != 0x7f800000u, is_nan = value != value;
        rest = is_finite ? rest : 0;
        float middle = bf16_to_float(bf16_of(rest));
        out[i] = (uint16_t)(bf16_of(value) | (is_nan ? 0x40u : 0u));
        out[tile + i] = bf16_of(middle);
        out[2 * tile + i] = bf16_of(rest - middle);
      }
  }
}

#if HAS_TILES
using PartSums = float[2 * INPUT_PARTS][MATRIX_TOKENS][PANEL];

// Sums of a tile of tokens' parts with the weights of 32 inputs of one or two panels: each part has a
// chain of its own, so that none waits for another.
template <bool HAS_SECOND>
INLINE void add_tiles(const uint16_t* inputs, int tile, const uint16_t* first, const uint16_t* second) {
  _tile_loadd(6, first, ROW_BYTES);
  _tile_loadd(7, inputs, ROW_BYTES);
  _tile_dpbf16ps(0, 7, 6);
  _tile_loadd(7, inputs + tile, ROW_BYTES);
  _tile_dpbf16ps(1, 7, 6);
  _tile_loadd(7, inputs + 2 * tile, ROW_BYTES);
  _tile_dpbf16ps(2, 7, 6);
  if (!HAS_SECOND) return;
  _tile_loadd(6, second, ROW_BYTES);
  _tile_dpbf16ps(5, 7, 6);
  _tile_loadd(7, inputs + tile, ROW_BYTES);
  _tile_dpbf16ps(4, 7, 6);
  _tile_loadd(7, inputs, ROW_BYTES);
  _tile_dpbf16ps(3, 7, 6);
}

INLINE void prefetch_tile(const uint16_t* weights) {
  UNROLL for (int row = 0; row < TILE_INPUTS / 2; row++)
    __builtin_prefetch((const char*)weights + PREFETCH_BYTES + row * ROW_BYTES);
}

// The last tile's weights are at `last`, where the panel ends within it.
template <bool HAS_SECOND>
void multiply_panels(const uint16_t* inputs, int tile, const uint16_t* weights, int64_t panel_step, int count,
                     const uint16_t* last, PartSums& sums) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  for (int i = 0; i < count; i++, weights += TILE_CODES, inputs += INPUT_PARTS * tile) {
    prefetch_tile(weights);
    if (HAS_SECOND) prefetch_tile(weights + panel_step);
    add_tiles<HAS_SECOND>(inputs, tile, weights, weights + panel_step);
  }
  if (last) add_tiles<HAS_SECOND>(inputs, tile, last, last + TILE_CODES);
  _tile_stored(0, sums[0], ROW_BYTES);
  _tile_stored(1, sums[1], ROW_BYTES);
  _tile_stored(2, sums[2], ROW_BYTES);
  if (!HAS_SECOND) return;
  _tile_stored(3, sums[3], ROW_BYTES);
  _tile_stored(4, sums[4], ROW_BYTES);
  _tile_stored(5, sums[5], ROW_BYTES);
}

// What tiles sum, by vectors, to the bit: of each 32 inputs the even and the odd ones in a chain of
// multiply-adds each, both added, and that to the sum; denormals are zeros, as in tiles. For one token, which
// would fill a sixteenth of a tile. `x` is its inputs [parts][span].
constexpr unsigned NO_DENORMALS = 0x8040;  // of MXCSR: as operands, and as results

constexpr int PANELS_OF_ONE = 4;  // as many streams of weights as for other kinds
using SumsOfOne = float[PANELS_OF_ONE * INPUT_PARTS][1][PANEL];

template <int P>
__attribute__((noinline)) void sum_as_tiles(const float* x, int span, const uint16_t* weights, int64_t panel_step,
                                            int size, SumsOfOne& sums) {
  memset(sums, 0, sizeof sums);
  for (int k = 0; k < size; k += TILE_INPUTS, x += TILE_INPUTS, weights += TILE_CODES) {
    Vec chains[2][P][INPUT_PARTS][VECTORS] = {};
    int end = least(TILE_INPUTS, size - k);
    UNROLL for (int i = 0; i < 2; i++)
      for (int pair = 0; pair < end; pair += 2) {
        const uint16_t* at = weights + pair * PANEL;
        Vec rows[P][VECTORS];
        UNROLL for (int p = 0; p < P; p++) {
          if (i == 0) __builtin_prefetch((const char*)(at + p * panel_step) + PREFETCH_BYTES);
          load_weights(at + p * panel_step, i, rows[p]);
        }
        UNROLL for (int part = 0; part < INPUT_PARTS; part++) {
          Vec input = splat(x[(int64_t)part * span + pair + i]);
          PIN(input);
          UNROLL for (int p = 0; p < P; p++) UNROLL for (int v = 0; v < VECTORS; v++) {
            chains[i][p][part][v] = rows[p][v] * input + chains[i][p][part][v];
            PIN(chains[i][p][part][v]);
          }
        }
      }
    UNROLL for (int p = 0; p < P; p++) UNROLL for (int part = 0; part < INPUT_PARTS; part++)
      UNROLL for (int v = 0; v < VECTORS; v++) {
        float* sum = sums[p * INPUT_PARTS + part][0] + v * LANES;
        store(sum, load(sum) + (chains[0][p][part][v] + chains[1][p][part][v]));
      }
  }
}

// One token's parts, in tiles of one row, as floats [parts][inputs].
void widen_parts(const uint16_t* tiles, int depth, float* out) {
  for (int k = 0; k < depth; k += TILE_INPUTS)
    for (int part = 0; part < INPUT_PARTS; part++, tiles += TILE_INPUTS)
      for (int i = 0; i < TILE_INPUTS; i++) out[(int64_t)part * depth + k + i] = bf16_to_float(tiles[i]);
}

INLINE float* out_of(const Machine& machine, const Op& op, int row, int panel) {
  const Buffer& target = machine.buffers[op.target.buffer];
  return target.rows + op.target.column + (int64_t)row * target.stride + panel * PANEL;
}
// One token's sums of some panels, the smallest parts first.
template <int N, int T>
INLINE void put_parts(const float (&sums)[N][T][PANEL], int token, int num_panels, float* out, bool adds) {
  for (int i = 0; i < num_panels; i++)
    for (int v = 0; v < PANEL; v += LANES) {
      const auto* part = sums + i * INPUT_PARTS;
      put(out + i * PANEL + v, load(part[0][token] + v) + (load(part[1][token] + v) + load(part[2][token] + v)), adds);
    }
}

// As bf16_linear, for one token.
void bf16_of_one(const Machine& machine, const Op& op, Range panels, float* scratch) {
  const Tensor& weight = machine.tensors[op.tensors[0]];
  int depth = (int)round_up(weight.columns, PANEL), span = (int)round_up(depth, TILE_INPUTS);
  int64_t panel_step = (int64_t)depth * PANEL;
  uint16_t* codes = (uint16_t*)scratch;
  float* parts = scratch + (int64_t)INPUT_PARTS * span;
  split_inputs(machine.buffers[op.sources[0].buffer].rows, 1, depth, TILE_INPUTS, codes);
  widen_parts(codes, span, parts);
  alignas(64) SumsOfOne sums;
  for (int p = panels.first, num_panels; p < panels.last; p += num_panels) {
    num_panels = panels.last - p >= PANELS_OF_ONE ? PANELS_OF_ONE : 1;
    auto sum = num_panels > 1 ? sum_as_tiles<PANELS_OF_ONE> : sum_as_tiles<1>;
    const uint16_t* panel = (const uint16_t*)weight.data + p * panel_step;
    for (int k = 0; k < depth; k += BF16_DEPTH) {
      unsigned mode = _mm_getcsr();
      _mm_setcsr(mode | NO_DENORMALS);
      sum(parts + k, span, panel + (int64_t)k * PANEL, panel_step, least(BF16_DEPTH, depth - k), sums);
      _mm_setcsr(mode);
      put_parts(sums, 0, num_panels, out_of(machine, op, 0, p), op.sizes[0] != 0 || k > 0);
    }
  }
}

// target (+)= operand x weight^T over some panels of the weight. Many tokens take a block of inputs after
// the other, with all panels; few have room for all inputs, so each panel is read from end to end.
void bf16_linear(const Machine& machine, const Op& op, int rows, Range panels, float* scratch) {
  const Tensor& weight = machine.tensors[op.tensors[0]];
  const Buffer& operand = machine.buffers[op.sources[0].buffer];
  int depth = (int)round_up(weight.columns, PANEL), span = rows <= MATRIX_TOKENS ? depth : BF16_DEPTH;
  int tile = least(rows, MATRIX_TOKENS) * TILE_INPUTS;
  int64_t panel_step = (int64_t)depth * PANEL;
  uint16_t* parts = (uint16_t*)scratch;
  alignas(64) uint16_t half[2 * TILE_CODES] = {};  // of tiles that a panel ends in, and zeros
  alignas(64) PartSums sums;
  for (int start = 0; start < depth; start += span) {
    int end = least(start + span, depth);
    int64_t tile_step = round_up(end - start, TILE_INPUTS) * INPUT_PARTS * MATRIX_TOKENS;
    for (int group = 0; group < groups_of(rows); group++) {
      int first = first_of(group, rows), tokens = first_of(group + 1, rows) - first;
      const float* x = operand.rows + (int64_t)first * depth + (int64_t)start * tokens;
      for (int row = first; row < first + tokens; row++) {
        uint16_t* out = parts + row / MATRIX_TOKENS * tile_step + row % MATRIX_TOKENS * TILE_INPUTS;
        split_inputs(x + row - first, tokens, end - start, tile, out);
      }
    }
    for (int p = panels.first; p < panels.last; p += 2) {
      int num_panels = least(2, panels.last - p);
      const uint16_t* panel = (const uint16_t*)weight.data + p * panel_step;
      if (end % TILE_INPUTS)
        for (int i = 0; i < num_panels; i++)
          memcpy(half + i * TILE_CODES, panel + (i + 1) * panel_step - TILE_CODES / 2, TILE_CODES * sizeof *half / 2);
      for (int first = 0; first < rows; first += MATRIX_TOKENS)
        for (int k = start; k < end; k += BF16_DEPTH) {
          int size = least(BF16_DEPTH, end - k), count = size / TILE_INPUTS;
          const uint16_t* last = size % TILE_INPUTS ? half : nullptr;
          const uint16_t* inputs = parts + first / MATRIX_TOKENS * tile_step + (k - start) * INPUT_PARTS * (tile / TILE_INPUTS);
          auto multiply = num_panels == 2 ? multiply_panels<true> : multiply_panels<false>;
          multiply(inputs, tile, panel + (int64_t)k * PANEL, panel_step, count, last, sums);
          for (int t = 0; t < least(MATRIX_TOKENS, rows - first); t++)
            put_parts(sums, t, num_panels, out_of(machine, op, first + t, p), op.sizes[0] != 0 || k > 0);
        }
    }
  }
}
#endif

}  // namespace
