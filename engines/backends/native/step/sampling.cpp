// From a row of logits to a token. Compiled once for each instruction set, without contracted
// multiply-adds and with 16 sums side by side in each: the same bits on every machine.
//
// A weight is e^((score - greatest) / temperature) in float32, 0 where the exponent is below -32; sums
// of weights are float64, those of blocks too light to be looked at again by a shorter e^x. Tokens stand
// in the order of their weights, ties by their index; min_p, top_k and top_p each keep a prefix of that
// order, and the token is where the random number falls among the kept ones, in the order of their
// indices. So nothing is ever sorted but a few candidates.

#include "sampling.h"

#include "logprobs.h"
#include "nucleus.h"
#include "program.h"
#include "scores.h"

namespace {

constexpr double TIE = 1e-5;  // exponents that differ by less may have one weight
constexpr double COLDEST = 1e-30, HOTTEST = 1e30;  // temperatures beyond which nothing changes

// Philox4x64-10. Source: Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (SC 2011).
double uniform(uint64_t seed, uint64_t position) {
  uint64_t counter[4] = {position + 1, position + 1 == 0, 0, 0}, key[2] = {seed, 0};
  for (int round = 0; round < 10; round++) {
    unsigned __int128 a = (unsigned __int128)0xD2E7470EE14C6C93 * counter[0];
    unsigned __int128 b = (unsigned __int128)0xCA5A826395121157 * counter[2];
    uint64_t next[4] = {(uint64_t)(b >> 64) ^ counter[1] ^ key[0], (uint64_t)b,
                        (uint64_t)(a >> 64) ^ counter[3] ^ key[1], (uint64_t)a};
    memcpy(counter, next, sizeof counter);
    key[0] += 0x9E3779B97F4A7C15;
    key[1] += 0xBB67AE8584CAA73B;
  }
  return (double)(counter[0] >> 11) * 0x1p-53;
}

// The block in which the number falls, and in `point` where in it.
int block_of(Cut cut, double number, int blocks, const Bench& bench, double* point) {
  if (cut.weight > 0)
    for (int b = 0; b < blocks; b++)
      bench.sums[b] = bench.most[b] < cut.weight
                          ? 0 : kept_sum(bench.weights + (int64_t)b * BLOCK, (int64_t)b * BLOCK, cut);
  double total = 0;
  for (int b = 0; b < blocks; b++) total += bench.sums[b];
  double whole = number * total, before = 0;
  int last = 0;
  for (int b = 0; b < blocks; b++) {
    if (!(bench.sums[b] > 0)) continue;
    last = b;
    *point = whole - before;
    if (before + bench.sums[b] > whole) break;
    before += bench.sums[b];
  }
  return last;
}

int32_t token_of(Cut cut, const float* weights, int block, double point) {
  int32_t token = -1;
  double before = 0;
  for (int32_t i = block * BLOCK; i < (block + 1) * BLOCK; i++) {
    if (!cut.keeps(weights[i - block * BLOCK], i)) continue;
    token = i;
    before += weights[i - block * BLOCK];
    if (before > point) break;
  }
  return token;
}

int32_t likeliest(const Scores& scores, double best, const Bench& bench) {
  float room[BLOCK];
  int b = 0, i = 0;
  while (bench.most[b] != best) b++;
  const float* found = scores.block(b, room);
  while (found[i] != best) i++;
  return b * BLOCK + i;
}

// The score below which no token is kept, so that its weight need not be known.
double least_of(const Draw& draw, double best, int blocks, const Bench& bench) {
  double least = best + (FAR - 1) * draw.temperature;
  if (draw.min_p > 0) least = greater(least, best + (log(draw.min_p) - 1) * draw.temperature);
  if (draw.top_k > 0 && draw.top_k <= blocks)
    least = greater(least, reached_by(draw.top_k, bench.most, blocks, bench.copy) - TIE * draw.temperature);
  return least;
}

// The score below which no weight is looked at again but by its block's sum.
double kept_of(const Draw& draw, double best, int64_t size) {
  if (draw.top_k > 0 || draw.min_p > 0) return -INFINITY;
  if (draw.top_p == 1) return INFINITY;
  return best + (log(LEAST_SHARE * (1 - draw.top_p) / size) - 0.1) * draw.temperature;
}

int32_t pick(const Scores& scores, const Draw& draw, int64_t size, const Bench& bench) {
  int blocks = (int)((size + BLOCK - 1) / BLOCK);
  double best = greatest(bench.most, blocks);
  if (draw.temperature < COLDEST) return likeliest(scores, best, bench);
  float inverse = (float)(1 / (draw.temperature < HOTTEST ? draw.temperature : HOTTEST));
  double least = least_of(draw, best, blocks, bench), point = 0;
  double total = weigh(scores, blocks, best, least, kept_of(draw, best, size), inverse, bench);
  Cut cut = cut_of(draw, total, size, bench);
  int b = block_of(cut, uniform(draw.seed, draw.position), blocks, bench, &point);
  float again[BLOCK], room[BLOCK], *weights = bench.weights + (int64_t)b * BLOCK;
  if (cut.weight == 0)
    weigh_block(scores.block(b, room), (float)best, inverse, weights = again, bench.copy);
  return token_of(cut, weights, b, point);
}

void put_bits(uint8_t* bits, const int32_t* tokens, int count, int64_t size, bool value) {
  for (int i = 0; i < count; i++) {
    int64_t token = tokens[i];
    if (token < 0 || token >= size) continue;
    uint8_t bit = (uint8_t)(1 << token % 8);
    bits[token / 8] = value ? bits[token / 8] | bit : bits[token / 8] & ~bit;
  }
}

bool has_any(const uint8_t* bits, int64_t size) {
  uint8_t any = 0;
  for (int64_t i = 0; i < size / 8; i++) any |= bits[i];
  if (size % 8) any |= bits[size / 8] & ((1 << size % 8) - 1);
  return any != 0;
}

// The bits of what may come, padded with zeros; nullptr for every token. The ends may not come before
// min_tokens are out, unless nothing else may.
const uint8_t* allowed_of(const Draw& draw, int64_t size, const Bench& bench) {
  bool is_early = draw.num_ends && draw.position < (uint64_t)draw.min_tokens;
  if (!draw.allowed && !is_early) return nullptr;
  int64_t bytes = (size + 7) / 8, padded = (size + BLOCK - 1) / BLOCK * (BLOCK / 8);
  auto fill = [&] {
    if (draw.allowed) memcpy(bench.allowed, draw.allowed, bytes);
    else memset(bench.allowed, 255, bytes);
    if (size % 8) bench.allowed[bytes - 1] &= (1 << size % 8) - 1;
    memset(bench.allowed + bytes, 0, padded - bytes);
  };
  fill();
  if (!is_early) return bench.allowed;
  put_bits(bench.allowed, draw.ends, draw.num_ends, size, false);
  if (!has_any(bench.allowed, size)) fill();
  return bench.allowed;
}

void remember(Draw& draw) {
  draw.position++;
  if (draw.seen) draw.seen[draw.token / 8] |= (uint8_t)(1 << draw.token % 8);
  if (!draw.counted) return;
  int at = 0;
  while (at < draw.num_counted && draw.counted[at] != draw.token) at++;
  if (at == draw.num_counted) {
    draw.counted[at] = draw.token;
    draw.counts[at] = 0;
    draw.num_counted++;
  }
  draw.counts[at]++;
}

}  // namespace

namespace nemotrt::NEMOTRT_ISA {

// Chooses the next token of `draw` for the `size` logits of its row, and remembers it.
void sample(Draw& draw, const float* logits, int64_t size, const Bench& bench) {
  int64_t whole = size / BLOCK * BLOCK;
  for (int i = 0; i < BLOCK; i++) bench.tail[i] = whole + i < size ? logits[whole + i] : -INFINITY;
  Row row = {logits, bench.tail, size};
  bool is_forced = draw.forced >= 0;
  Scores scores = {bench.blocks, is_forced ? nullptr : allowed_of(draw, size, bench)};
  draw.status = NO_TOKEN;
  if (scores.allowed && !has_any(scores.allowed, size)) return;
  draw.status = NOT_FINITE;
  bool is_finite = is_forced ? survey(row, bench, [](int) {}) : find(row, draw, scores, bench);
  if (!is_finite) return;
  draw.token = is_forced ? draw.forced : pick(scores, draw, size, bench);
  draw.status = DRAWN;
  if (draw.num_top >= 0) score(row, draw, bench);
  remember(draw);
}

}  // namespace nemotrt::NEMOTRT_ISA
