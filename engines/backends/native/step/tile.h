// What one tile of a matrix product is given: some panels of 16 weight rows, and a group of tokens.
#pragma once

#include "operand.h"

namespace {

struct Tile {
  const void* weight;
  const void* operand;
  int depth;
  int64_t panel_bytes;  // from one panel to the next
  const float* row_scales;
  const float* token_scales;
  int token_scale_stride;
  float* out;
  int64_t stride;
  bool adds;
};

constexpr int PREFETCH_BYTES = 2048;
constexpr int VECTORS = PANEL / LANES;  // registers that hold one value for each row of a panel

template <typename W>
INLINE const W* panel_of(const W* first, const Tile& tile, int number) {
  return (const W*)((const char*)first + number * tile.panel_bytes);
}

// How far ahead of its loads a tile of P panels asks for weights: in its own panels, and towards their
// end, where the next tile's panels begin. `bytes` are a panel's in this tile.
struct Ahead {
  const char* turn;
  int64_t far;
};
template <int P>
INLINE Ahead ahead_of(const Tile& tile, int64_t bytes) {
  return {(const char*)tile.weight + bytes - PREFETCH_BYTES, PREFETCH_BYTES - bytes + P * tile.panel_bytes};
}
INLINE int64_t distance(const Ahead& ahead, const void* first_panel) {
  return (const char*)first_panel < ahead.turn ? PREFETCH_BYTES : ahead.far;
}

constexpr int MAX_SUMS = VECTORS == 1 ? 24 : 8;  // registers that a tile of several panels sums in

// How many panels a tile of T tokens takes.
constexpr int panels_at_once(int tokens) {
  return tokens * VECTORS * 4 <= MAX_SUMS ? 4 : tokens * VECTORS * 2 <= MAX_SUMS ? 2 : 1;
}

INLINE void put(float* out, Vec value, bool adds) {
  store(out, adds ? load(out) + value : value);
}

}  // namespace
