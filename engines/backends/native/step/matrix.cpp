// Linears on AMX's tiles: with int8 weights for many tokens, with bf16 weights for all. Compiled with
// the flags of the instruction set whose operands it reads.
//
// For int8 weights an int16 input is a signed byte times 256 and an unsigned byte: two passes form the
// same exact sums as the other kernels, so a token's result is the same bits here and there.

#include "gemm.h"

#if defined(NEMOTRT_AMX_EMULATION)
#include NEMOTRT_AMX_EMULATION
#define HAS_TILES 1
#elif defined(__AMX_INT8__) && defined(__AMX_BF16__)
#include <immintrin.h>
#define HAS_TILES 1
#else
#define HAS_TILES 0
#endif

namespace {

constexpr int ROW_BYTES = 64;  // of a tile's row: so many inputs of 8 bits
constexpr int TILE_BYTES = MATRIX_TOKENS * ROW_BYTES;
static_assert(PANEL == 16 && DEPTH_BLOCK % ROW_BYTES == 0, "a panel fills a tile");

INLINE int tiles_of_depth(int depth) { return (depth + ROW_BYTES - 1) / ROW_BYTES; }

}  // namespace

#include "matrix_bf16.h"

namespace {

// One token's inputs of a block: its low bytes, and high ones, in rows of tiles.
void split_token(const int16_t* codes, int tokens, int depth, uint8_t* low, uint8_t* high) {
  alignas(64) int16_t row[DEPTH_BLOCK];
  int end = (int)round_up(depth, ROW_BYTES);
  for (int k = 0; k < depth; k += 2) memcpy(row + k, codes + (int64_t)k * tokens, 2 * sizeof *row);
  memset(row + depth, 0, (end - depth) * sizeof *row);
  for (int k = 0; k < end; k += ROW_BYTES, low += TILE_BYTES, high += TILE_BYTES)
    for (int i = 0; i < ROW_BYTES; i++) {
      low[i] = (uint8_t)row[k + i];
      high[i] = (uint8_t)(row[k + i] >> 8);
    }
}

// A panel's weights of a block in rows of four inputs, from rows of two.
void pack_weights(const int8_t* weight, int depth, int8_t* out) {
  int count = depth / 4, end = (int)round_up(depth, ROW_BYTES) / 4;
  const uint16_t* pairs = (const uint16_t*)weight;
  uint32_t* fours = (uint32_t*)out;
  for (int k = 0; k < count; k++, pairs += 2 * PANEL, fours += PANEL) {
    __builtin_prefetch((const char*)pairs + PREFETCH_BYTES);
#if defined(__AVX512VNNI__)  // gcc 12 takes the portable form apart
    __m512i low = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)pairs));
    __m512i high = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)(pairs + PANEL)));
    _mm512_storeu_si512(fours, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
#else
    for (int r = 0; r < PANEL; r++) fours[r] = pairs[r] | (uint32_t)pairs[PANEL + r] << 16;
#endif
  }
  memset(fours, 0, (size_t)(end - count) * PANEL * sizeof *fours);
}

#if HAS_TILES
struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// Sums of low and of high bytes of two tiles of tokens.
void multiply_tiles(const uint8_t* first, const uint8_t* second, int64_t high, const int8_t* weights, int count,
                    int32_t (&sums)[4][MATRIX_TOKENS][PANEL]) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int i = 0; i < count; i++) {
    int64_t at = (int64_t)i * TILE_BYTES;
    _tile_loadd(4, weights + at, ROW_BYTES);
    _tile_loadd(5, first + at, ROW_BYTES);
    _tile_dpbusd(0, 5, 4);
    _tile_loadd(6, first + high + at, ROW_BYTES);
    _tile_dpbssd(1, 6, 4);
    _tile_loadd(5, second + at, ROW_BYTES);
    _tile_dpbusd(2, 5, 4);
    _tile_loadd(6, second + high + at, ROW_BYTES);
    _tile_dpbssd(3, 6, 4);
  }
  _tile_stored(0, sums[0], ROW_BYTES);
  _tile_stored(1, sums[1], ROW_BYTES);
  _tile_stored(2, sums[2], ROW_BYTES);
  _tile_stored(3, sums[3], ROW_BYTES);
}
#endif

struct Product {
  const Buffer& operand;
  int depth, block, rows;
  const float* row_scales;
  float* out;
  int64_t stride;
  bool adds;
};

// As int8_tile ends.
INLINE void put_tile(const Product& product, int first, const int32_t (&low)[MATRIX_TOKENS][PANEL],
                     const int32_t (&high)[MATRIX_TOKENS][PANEL]) {
  int blocks = blocks_of(product.depth);
  for (int t = 0; t < least(MATRIX_TOKENS, product.rows - first); t++) {
    float scale = product.operand.scales[(int64_t)(first + t) * blocks + product.block];
    for (int v = 0; v < PANEL; v += LANES) {
      IntVec a, b;
      memcpy(&a, low[t] + v, sizeof a);
      memcpy(&b, high[t] + v, sizeof b);
      Vec sum = __builtin_convertvector((b << 8) + a, Vec);
      Vec value = load(product.row_scales + v) * scale * sum;
      PIN(value);  // else its product may be fused with the addition, which int8_tile's is not
      put(product.out + (first + t) * product.stride + v, value, product.adds);
    }
  }
}

#if HAS_TILES
void int8_linear(const Machine& machine, const Op& op, int rows, Range panels, float* scratch) {
  const Tensor& weight = machine.tensors[op.tensors[0]];
  const Buffer &operand = machine.buffers[op.sources[0].buffer], &target = machine.buffers[op.target.buffer];
  const float* scales = values(machine, op.tensors[1]);
  int64_t scale_step = machine.tensors[op.tensors[1]].rows > 1 ? round_up(weight.rows, PANEL) : 0;
  int depth = (int)round_up(weight.columns, PANEL);
  int64_t high = round_up(rows, MATRIX_TOKENS) * DEPTH_BLOCK;
  uint8_t* bytes = (uint8_t*)scratch;
  int8_t* weights = (int8_t*)(bytes + 2 * high);
  alignas(64) int32_t sums[4][MATRIX_TOKENS][PANEL];
  for (int b = 0; b < blocks_of(depth); b++) {
    int start = b * DEPTH_BLOCK, size = least(DEPTH_BLOCK, depth - start), count = tiles_of_depth(size);
    for (int group = 0; group < groups_of(rows); group++) {
      int first = first_of(group, rows), tokens = first_of(group + 1, rows) - first;
      const int16_t* codes = operand.codes + (int64_t)first * depth + (int64_t)start * tokens;
      for (int t = 0; t < tokens; t++) {
        int row = first + t, tile = row / MATRIX_TOKENS;
        uint8_t* low = bytes + (int64_t)tile * count * TILE_BYTES + row % MATRIX_TOKENS * ROW_BYTES;
        split_token(codes + 2 * t, tokens, size, low, low + high);
      }
    }
    for (int p = panels.first; p < panels.last; p++) {
      pack_weights((const int8_t*)weight.data + (int64_t)p * PANEL * depth + (int64_t)start * PANEL, size, weights);
      Product product = {operand, depth, b, rows, scales + b * scale_step + p * PANEL,
                         target.rows + op.target.column + p * PANEL, target.stride, op.sizes[0] != 0 || b > 0};
      for (int first = 0; first < rows; first += 2 * MATRIX_TOKENS) {
        const uint8_t* one = bytes + (int64_t)first / MATRIX_TOKENS * count * TILE_BYTES;
        bool has_second = first + MATRIX_TOKENS < rows;
        multiply_tiles(one, has_second ? one + count * TILE_BYTES : one, high, weights, count, sums);
        put_tile(product, first, sums[0], sums[1]);
        if (has_second) put_tile(product, first + MATRIX_TOKENS, sums[2], sums[3]);
      }
    }
  }
}
#endif

}  // namespace

namespace nemotrt::NEMOTRT_ISA {

void matrix_linear(const Machine& machine, const Op& op, int rows, Range panels, float* scratch) {
#if HAS_TILES
  bool is_int8 = machine.tensors[op.tensors[0]].kind == PANELS_INT8;
  if (!is_int8 && rows == 1) return bf16_of_one(machine, op, panels, scratch);
  TileConfig config;
  if (!is_int8 && rows < MATRIX_TOKENS)  // the sums and inputs of few tokens
    for (int tile : {0, 1, 2, 3, 4, 5, 7}) config.rows[tile] = (uint8_t)rows;
  _tile_loadconfig(&config);
  if (is_int8) int8_linear(machine, op, rows, panels, scratch);
  else bf16_linear(machine, op, rows, panels, scratch);
  _tile_release();
#else
  (void)machine, (void)op, (void)rows, (void)panels, (void)scratch;
#endif
}

bool has_matrix_linear() {
#if HAS_TILES
  return true;
#else
  return false;
#endif
}

}  // namespace nemotrt::NEMOTRT_ISA
