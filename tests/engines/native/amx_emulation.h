// AMX's tile instructions in plain C++, by Intel's description: for the tests' build alone. Tiles are as
// configured, which is checked, so that a kernel that forgets to configure or release them is found.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace {

struct EmulatedTiles {
  bool is_configured = false;
  int rows[8], row_bytes[8];
  uint8_t data[8][16][64];
  ~EmulatedTiles() {
    if (is_configured) abort();  // a thread ends and has not released its tiles
  }
};
thread_local EmulatedTiles emulated;

void check_tile(int tile) {
  if (!emulated.is_configured || tile < 0 || tile > 7) abort();
}
void emulate_loadconfig(const void* memory) {
  const uint8_t* bytes = (const uint8_t*)memory;
  if (bytes[0] != 1) abort();
  for (int i = 0; i < 8; i++) {
    uint16_t width;
    memcpy(&width, bytes + 16 + 2 * i, sizeof width);
    emulated.row_bytes[i] = width, emulated.rows[i] = bytes[48 + i];
    if (width > 64 || bytes[48 + i] > 16) abort();
  }
  memset(emulated.data, 0, sizeof emulated.data);
  emulated.is_configured = true;
}
void emulate_release() { emulated.is_configured = false; }
void emulate_zero(int tile) {
  check_tile(tile);
  memset(emulated.data[tile], 0, sizeof emulated.data[tile]);
}
void emulate_loadd(int tile, const void* base, int64_t stride) {
  check_tile(tile);
  for (int row = 0; row < emulated.rows[tile]; row++)
    memcpy(emulated.data[tile][row], (const char*)base + row * stride, emulated.row_bytes[tile]);
}
void emulate_stored(int tile, void* base, int64_t stride) {
  check_tile(tile);
  for (int row = 0; row < emulated.rows[tile]; row++)
    memcpy((char*)base + row * stride, emulated.data[tile][row], emulated.row_bytes[tile]);
}
// TDPBUSD and TDPBSSD: four products of bytes to each int32, which wraps.
template <typename Input>
void dot_bytes(int sums, int a, int b) {
  check_tile(sums), check_tile(a), check_tile(b);
  for (int m = 0; m < emulated.rows[sums]; m++)
    for (int k = 0; k < emulated.row_bytes[a] / 4; k++)
      for (int n = 0; n < emulated.row_bytes[sums] / 4; n++) {
        uint32_t sum;
        memcpy(&sum, emulated.data[sums][m] + 4 * n, sizeof sum);
        for (int i = 0; i < 4; i++)
          sum += (uint32_t)((int32_t)(Input)emulated.data[a][m][4 * k + i] *
                            (int32_t)(int8_t)emulated.data[b][k][4 * n + i]);
        memcpy(emulated.data[sums][m] + 4 * n, &sum, sizeof sum);
      }
}
void emulate_dpbusd(int sums, int a, int b) { dot_bytes<uint8_t>(sums, a, b); }
void emulate_dpbssd(int sums, int a, int b) { dot_bytes<int8_t>(sums, a, b); }

float without_denormals(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  if (!(bits & 0x7f800000u)) bits &= 0x80000000u;
  memcpy(&x, &bits, sizeof x);
  return x;
}
// A tile's rows of bf16 as floats.
void read_bf16(int tile, float (&out)[16][32]) {
  for (int row = 0; row < 16; row++)
    for (int i = 0; i < 32; i++) {
      uint16_t word;
      memcpy(&word, emulated.data[tile][row] + 2 * i, sizeof word);
      uint32_t bits = (uint32_t)word << 16;
      memcpy(&out[row][i], &bits, sizeof bits);
      out[row][i] = without_denormals(out[row][i]);
    }
}
// TDPBF16PS: the even and the odd inputs of a row in a chain of multiply-adds each, their sum added to the tile.
void emulate_dpbf16ps(int sums, int a, int b) {
  check_tile(sums), check_tile(a), check_tile(b);
  if (emulated.rows[sums] != emulated.rows[a] || emulated.row_bytes[sums] != emulated.row_bytes[b] ||
      emulated.row_bytes[a] != 4 * emulated.rows[b])
    abort();
  float inputs[16][32], weights[16][32];
  read_bf16(a, inputs), read_bf16(b, weights);
  for (int m = 0; m < emulated.rows[sums]; m++) {
    float chains[32] = {}, old[16];
    for (int k = 0; k < emulated.row_bytes[a] / 4; k++)
      for (int n = 0; n < 32; n++)
        chains[n] = without_denormals(__builtin_fmaf(inputs[m][2 * k + n % 2], weights[k][n], chains[n]));
    memcpy(old, emulated.data[sums][m], sizeof old);
    for (int n = 0; n < emulated.row_bytes[sums] / 4; n++) {
      float both = without_denormals(chains[2 * n] + chains[2 * n + 1]);
      old[n] = without_denormals(without_denormals(old[n]) + both);
    }
    memcpy(emulated.data[sums][m], old, emulated.row_bytes[sums]);
  }
}

}  // namespace

#undef _tile_loadconfig
#define _tile_loadconfig emulate_loadconfig
#undef _tile_release
#define _tile_release emulate_release
#undef _tile_zero
#define _tile_zero emulate_zero
#undef _tile_loadd
#define _tile_loadd emulate_loadd
#undef _tile_stored
#define _tile_stored emulate_stored
#undef _tile_dpbusd
#define _tile_dpbusd emulate_dpbusd
#undef _tile_dpbssd
#define _tile_dpbssd emulate_dpbssd
#undef _tile_dpbf16ps
#define _tile_dpbf16ps emulate_dpbf16ps
