// Linears with bf16 weights: the engine's float32 products beside vdpbf16ps on inputs cut into bf16 parts.
// Prints one JSON object for each depth and number of parts. Turns take each other's place; the best counts.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <time.h>
#include <vector>

#include "gemm.h"

namespace {

constexpr int T = GROUP, WEIGHT_PANELS = 2, GROUPS = 16, TURNS = 60;

double now() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);  // what else runs here takes turns with us
  return t.tv_sec + 1e-9 * t.tv_nsec;
}

uint16_t to_bf16(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
float from_bf16(uint16_t x) {
  uint32_t bits = (uint32_t)x << 16;
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

// Inputs are [depth / 2][parts][T] pairs of bf16; weights lie as they do for float_tile.
template <int PARTS>
__attribute__((noinline)) void parts_tile(const Tile& tile) {
  const uint16_t* w = (const uint16_t*)tile.weight;
  const int32_t* x = (const int32_t*)tile.operand;
  alignas(64) uint16_t order[32];
  for (int r = 0; r < PANEL; r++) order[2 * r] = r, order[2 * r + 1] = PANEL + r;
  __m512i pairs = _mm512_load_si512(order);
  __m512 sums[T];
  UNROLL for (int t = 0; t < T; t++) sums[t] = _mm512_setzero_ps();
  for (int k = 0; k < tile.depth; k += 2, w += 2 * PANEL, x += PARTS * T) {
    __builtin_prefetch((const char*)w + PREFETCH_BYTES);
    __m512bh weights = (__m512bh)_mm512_permutexvar_epi16(pairs, _mm512_loadu_si512(w));
    UNROLL for (int p = 0; p < PARTS; p++) UNROLL for (int t = 0; t < T; t++) {
      sums[t] = _mm512_dpbf16_ps(sums[t], weights, (__m512bh)_mm512_set1_epi32(x[p * T + t]));
      PIN(sums[t]);
    }
  }
  UNROLL for (int t = 0; t < T; t++) put(tile.out + t * tile.stride, (Vec)sums[t], tile.adds);
}

struct Data {
  int depth;
  std::vector<uint16_t> weights;             // [panels][depth][PANEL]
  std::vector<float> inputs;                 // [groups][depth][T]
  std::vector<int32_t> parts[4];             // by number of parts
  std::vector<float> out;                    // [groups * T][panels * PANEL]
};

Data draw(int depth) {
  Data d = {depth, std::vector<uint16_t>((size_t)WEIGHT_PANELS * depth * PANEL),
            std::vector<float>((size_t)GROUPS * depth * T), {}, {}};
  d.out.resize((size_t)GROUPS * T * WEIGHT_PANELS * PANEL);
  std::mt19937 random(depth);
  std::normal_distribution<float> normal;
  for (auto& w : d.weights) w = to_bf16(normal(random) / sqrtf((float)depth));
  for (auto& x : d.inputs) x = normal(random);
  for (int parts = 2; parts <= 3; parts++) {
    d.parts[parts].resize((size_t)GROUPS * depth / 2 * parts * T);
    uint16_t* codes = (uint16_t*)d.parts[parts].data();
    for (int g = 0; g < GROUPS; g++)
      for (int k = 0; k < depth; k++)
        for (int t = 0; t < T; t++) {
          float rest = d.inputs[((size_t)g * depth + k) * T + t];
          for (int p = 0; p < parts; p++) {
            uint16_t code = to_bf16(rest);
            rest -= from_bf16(code);
            codes[((((size_t)g * depth / 2 + k / 2) * parts + p) * T + t) * 2 + k % 2] = code;
          }
        }
  }
  return d;
}

// All products, in blocks of the engine's depth; parts 0 are the engine's own.
double run(Data& d, int parts) {
  TileRun tile = parts == 0 ? float_tile<uint16_t, T, 1> : parts == 2 ? parts_tile<2> : parts_tile<3>;
  int64_t panel_bytes = 2ll * PANEL * d.depth, stride = WEIGHT_PANELS * PANEL;
  double start = now();
  for (int first = 0; first < d.depth; first += DEPTH_BLOCK)
    for (int g = 0; g < GROUPS; g++)
      for (int p = 0; p < WEIGHT_PANELS; p++) {
        int size = least(DEPTH_BLOCK, d.depth - first);
        const void* x = parts ? (const void*)(d.parts[parts].data() + ((size_t)g * d.depth + first) / 2 * parts * T)
                              : d.inputs.data() + ((size_t)g * d.depth + first) * T;
        tile({(const char*)d.weights.data() + p * panel_bytes + 2ll * first * PANEL, x, size, panel_bytes, nullptr,
              nullptr, 0, d.out.data() + (size_t)g * T * stride + p * PANEL, stride, first > 0});
      }
  return now() - start;
}

// The products of AMX's bf16 tiles, one after the other: 32 inputs in two chains, whose sum is added to the tile.
void run_tiles(Data& d, int parts) {
  for (int t = 0; t < GROUPS * T; t++)
    for (int r = 0; r < WEIGHT_PANELS * PANEL; r++) {
      float sum = 0;
      for (int k = 0; k < d.depth; k += 32)
        for (int p = 0; p < parts; p++) {
          float chains[2] = {0, 0};
          for (int j = k; j < least(k + 32, d.depth); j++) {
            const uint16_t* codes = (const uint16_t*)d.parts[parts].data();
            size_t pair = (((size_t)(t / T) * d.depth / 2 + j / 2) * parts + p) * T + t % T;
            float w = from_bf16(d.weights[((size_t)(r / PANEL) * d.depth + j) * PANEL + r % PANEL]);
            chains[j % 2] = fmaf(from_bf16(codes[2 * pair + j % 2]), w, chains[j % 2]);
          }
          sum += chains[0] + chains[1];
        }
      d.out[(size_t)t * WEIGHT_PANELS * PANEL + r] = sum;
    }
}

// Root of the mean square of the differences from sums in float64.
double error_of(const Data& d) {
  double total = 0;
  for (int t = 0; t < GROUPS * T; t++)
    for (int r = 0; r < WEIGHT_PANELS * PANEL; r++) {
      double sum = 0;
      for (int k = 0; k < d.depth; k++)
        sum += (double)d.inputs[((size_t)(t / T) * d.depth + k) * T + t % T] *
               from_bf16(d.weights[((size_t)(r / PANEL) * d.depth + k) * PANEL + r % PANEL]);
      double difference = d.out[(size_t)t * WEIGHT_PANELS * PANEL + r] - sum;
      total += difference * difference;
    }
  return sqrt(total / d.out.size());
}

}  // namespace

int main() {
  for (int depth : {1024, 4480, 10240, 15680}) {
    Data d = draw(depth);
    double best[4] = {1e9, 1e9, 1e9, 1e9}, errors[4];
    for (int turn = 0; turn < TURNS; turn++)
      for (int parts : {0, 2, 3}) best[parts] = std::min(best[parts], run(d, parts));
    for (int parts : {0, 2, 3}) run(d, parts), errors[parts] = error_of(d);
    for (int parts : {2, 3}) {
      run_tiles(d, parts);
      printf("{\"depth\": %d, \"parts\": %d, \"speed_over_float32\": %.2f, \"error_over_float32\": %.2f, "
             "\"error_of_tiles_over_float32\": %.2f}\n",
             depth, parts, best[0] / best[parts], errors[parts] / errors[0], error_of(d) / errors[0]);
    }
    fflush(stdout);
  }
}
