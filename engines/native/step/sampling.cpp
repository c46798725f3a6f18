// From a row of logits to a token. Compiled once for each instruction set, without contracted
// multiply-adds and with 16 sums side by side in each: the same bits on every machine.
//
// A weight is e^((score - greatest) / temperature) in float32, 0 where the exponent is below -32; sums
// of weights are float64. Tokens stand in the order of their weights, ties by their index; min_p, top_k
// and top_p each keep a prefix of that order, and the token is where the random number falls among the
// kept ones, in the order of their indices. So nothing is ever sorted but a few candidates.

#include "sampling.h"

#include <float.h>

#include "program.h"
#include "vector.h"

namespace {
using namespace nemotrt;

constexpr int BLOCK = SAMPLING_BLOCK;
constexpr float FAR = -32.f;     // 131,072 weights of e^-32 are less than an ulp of the greatest
constexpr double LEAST_SHARE = 0.5;  // of 1 - top_p: what lighter tokens than the lightest kept have
constexpr int WINDOW = 4096;     // candidates among which the last kept one is selected
constexpr int FEW = 16;          // of them are sorted
constexpr int SUMS = 16;
constexpr float SMALLEST = 1e-14f;  // below every weight but 0
constexpr double TIE = 1e-5;     // exponents that differ by less may have one weight
constexpr double COLDEST = 1e-30, HOTTEST = 1e30;  // temperatures beyond which nothing changes

INLINE IntVec bits_at(const uint8_t* bits, int at) {
  IntVec lane, word;
  for (int i = 0; i < LANES; i++) lane[i] = 1 << i;
  int value = bits[at / 8];
  if (LANES == 16) value |= bits[at / 8 + 1] << 8;
  for (int i = 0; i < LANES; i++) word[i] = value;
  return (word & lane) != 0;
}
INLINE bool has_any_at(const uint8_t* bits, int64_t at) {
  return bits[at / 8] || (LANES == 16 && bits[at / 8 + 1]);
}
INLINE bool is_none(IntVec mask) {
#if defined(__AVX512VNNI__)
  return !_mm512_test_epi32_mask((__m512i)mask, (__m512i)mask);
#elif defined(__AVX2__)
  return _mm256_testz_si256((__m256i)mask, (__m256i)mask);
#else
  int32_t any = 0;
  for (int i = 0; i < LANES; i++) any |= mask[i];
  return !any;
#endif
}
INLINE int64_t lesser(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE double greater(double a, double b) { return a > b ? a : b; }
INLINE double greatest(Vec v) {
  float most = v[0];
  for (int i = 1; i < LANES; i++) most = v[i] > most ? v[i] : most;
  return most;
}

double greatest(const double* values, int count) {
  double most = values[0];
  for (int i = 1; i < count; i++) most = greater(most, values[i]);
  return most;
}

// The standard library's templates would be shared with units of other instruction sets: not here.
template <typename Before>
void sort(int32_t* items, int64_t count, Before stands_before) {
  constexpr int64_t GAPS[] = {8861, 3938, 1750, 701, 301, 132, 57, 23, 10, 4, 1};
  for (int64_t gap : GAPS)
    for (int64_t i = gap; i < count; i++) {
      int32_t item = items[i];
      int64_t j = i;
      for (; j >= gap && stands_before(item, items[j - gap]); j -= gap) items[j] = items[j - gap];
      items[j] = item;
    }
}

// The value that `rank` (from 1) of the values reach; `copy` has room for them.
double reached_by(int64_t rank, const double* values, int count, double* copy) {
  memcpy(copy, values, count * sizeof *copy);
  int64_t first = 0, last = count - 1, at = rank - 1;
  while (first < last) {
    double pivot = copy[first + (last - first) / 2];
    int64_t i = first, j = last;
    while (i <= j) {
      while (copy[i] > pivot) i++;
      while (copy[j] < pivot) j--;
      if (i > j) break;
      double value = copy[i];
      copy[i++] = copy[j];
      copy[j--] = value;
    }
    if (at <= j) last = j;
    else if (at >= i) first = i;
    else break;
  }
  return copy[at];
}

// Sums of 16 lanes, the same ones whatever a register holds, added up in one order.
typedef double Half __attribute__((vector_size(REGISTER_BYTES)));
#if defined(__AVX512VNNI__)
INLINE Half lower(Vec v) { return (Half)_mm512_cvtps_pd(_mm512_castps512_ps256((__m512)v)); }
INLINE Half upper(Vec v) { return (Half)_mm512_cvtps_pd(_mm512_extractf32x8_ps((__m512)v, 1)); }
#elif defined(__AVX2__)
INLINE Half lower(Vec v) { return (Half)_mm256_cvtps_pd(_mm256_castps256_ps128((__m256)v)); }
INLINE Half upper(Vec v) { return (Half)_mm256_cvtps_pd(_mm256_extractf128_ps((__m256)v, 1)); }
#else
INLINE Half lower(Vec v) { return Half{v[0], v[1], v[2], v[3]}; }
INLINE Half upper(Vec v) { return Half{v[4], v[5], v[6], v[7]}; }
#endif
struct Sums {
  static constexpr int PARTS = SUMS / LANES;
  Half parts[2 * PARTS] = {};
  __attribute__((always_inline)) void add(int part, Vec v) {
    parts[2 * part] += lower(v);
    parts[2 * part + 1] += upper(v);
  }
  double total() const {
    double lanes[SUMS];
    memcpy(lanes, parts, sizeof lanes);
    UNROLL for (int half = SUMS / 2; half; half /= 2)
      for (int i = 0; i < half; i++) lanes[i] += lanes[i + half];
    return lanes[0];
  }
};

// A row of scores in blocks; its last block may lie elsewhere, filled up with minus infinity.
struct Row {
  const float* scores;
  const float* tail;
  int64_t size;
  int blocks() const { return (int)((size + BLOCK - 1) / BLOCK); }
  const float* block(int b) const { return (b + 1ll) * BLOCK <= size ? scores + (int64_t)b * BLOCK : tail; }
};

// What is kept of the order of weights: those above `weight`, and of its equals those up to `index`.
struct Cut {
  float weight;
  int64_t index;
  bool keeps(float w, int64_t i) const { return w > weight || (w == weight && i <= index); }
};
constexpr Cut EVERYTHING = {0, -1};
Cut shorter(Cut a, Cut b) {
  if (a.weight != b.weight) return a.weight > b.weight ? a : b;
  return a.index < b.index ? a : b;
}

struct Measure {
  double mass;
  int64_t count;
};

// ---- scores

INLINE double greatest_of(const float* scores) {
  Vec most[2] = {splat(-INFINITY), splat(-INFINITY)};
  for (int i = 0; i < BLOCK; i += 2 * LANES)
    UNROLL for (int j = 0; j < 2; j++) most[j] = max(load(scores + i + j * LANES), most[j]);
  return greatest(max(most[0], most[1]));
}

// A register's part of a test that finds NaN and infinity in any of its values.
struct Faults {
  Vec sums[2] = {splat(0), splat(0)};
  __attribute__((always_inline)) void add(int part, Vec v) { sums[part] += v * 0.f; }
  bool any() const {
    for (int i = 0; i < LANES; i++)
      if (sums[0][i] != 0 || sums[1][i] != 0) return true;
    return false;
  }
};
bool has_fault(const Row& row) {  // in the last block, which is filled up by infinities
  for (int64_t i = row.size / BLOCK * BLOCK; i < row.size; i++)
    if (!(row.scores[i] * 0.f == 0.f)) return true;
  return false;
}

// The greatest logit of each block; false if one is not finite.
bool survey(const Row& row, double* most) {
  if (has_fault(row)) return false;
  Faults faults;
  for (int b = 0; b < row.blocks(); b++) {
    const float* scores = row.block(b);
    bool is_whole = (b + 1ll) * BLOCK <= row.size;
    Vec found[2] = {splat(-INFINITY), splat(-INFINITY)};
    for (int i = 0; i < BLOCK; i += 2 * LANES) {
      UNROLL for (int j = 0; j < 2; j++) {
        Vec v = load(scores + i + j * LANES);
        if (is_whole) faults.add(j, v);
        found[j] = max(v, found[j]);
      }
    }
    most[b] = greatest(max(found[0], found[1]));
  }
  return !faults.any();
}

float finite(double value) {
  return (float)(value > FLT_MAX ? FLT_MAX : value < -FLT_MAX ? -FLT_MAX : value);
}

// The row's scores with penalties and biases, minus infinity where `allowed` has no token, and their
// greatest ones; false if a logit is not finite.
bool edit(const Row& row, const Draw& draw, const uint8_t* allowed, const Bench& bench) {
  if (has_fault(row)) return false;
  Faults faults;
  float* edited = bench.edited;
  Vec factor = splat(finite(draw.repetition)), low = splat(-FLT_MAX), high = splat(FLT_MAX);
  for (int b = 0; b < row.blocks(); b++) {
    const float* scores = row.block(b);
    bool is_whole = (b + 1ll) * BLOCK <= row.size;
    Vec found[2] = {splat(-INFINITY), splat(-INFINITY)};
    for (int i = 0; i < BLOCK; i += 2 * LANES) {
      UNROLL for (int j = 0; j < 2; j++) {
        int64_t at = (int64_t)b * BLOCK + i + j * LANES;
        Vec v = load(scores + i + j * LANES);
        if (is_whole) faults.add(j, v);
        if (draw.seen && has_any_at(draw.seen, at))
          v = bits_at(draw.seen, (int)at) ? max(min(v > 0 ? v / factor : v * factor, high), low) : v;
        if (allowed) v = bits_at(allowed, (int)at) ? v : splat(-INFINITY);
        store(edited + at, v);
        found[j] = max(v, found[j]);
      }
    }
    bench.most[b] = greatest(max(found[0], found[1]));
  }
  auto add = [&](int64_t token, double change) {
    if (edited[token] == -INFINITY) return;
    edited[token] = finite(edited[token] + change);
    bench.most[token / BLOCK] = NAN;  // to be found again
  };
  for (int i = 0; i < draw.num_counted; i++)
    add(draw.counted[i], -(draw.presence + draw.frequency * draw.counts[i]));
  for (int i = 0; i < draw.num_biased; i++) add(draw.biased[i], draw.biases[i]);
  for (int b = 0; b < row.blocks(); b++)
    if (bench.most[b] != bench.most[b]) bench.most[b] = greatest_of(edited + (int64_t)b * BLOCK);
  return !faults.any();
}

// e^x for x from FAR to 0, any bits below; relative error about 1e-7, and e^0 is 1. The polynomial is
// vector.h's, in pairs of terms that do not wait for each other.
INLINE Vec decay(Vec x) {
  Vec n = round_even(x * 1.44269504f), r = x - n * 0.693359375f + n * 2.12194440e-4f, squared = r * r;
  Vec high = r * 1.9875691500e-4f + 1.3981999507e-3f, middle = r * 8.3334519073e-3f + 4.1665795894e-2f;
  Vec low = r * 1.6666665459e-1f + 5.0000001201e-1f;
  Vec power = ((high * squared + middle) * squared + low) * squared + (r + 1.f);
  IntVec scale = (__builtin_convertvector(n, IntVec) + 127) << 23;
  return power * (Vec)scale;
}

// The weights of a block's tokens, into `weights`, the greatest into `most`; returns their sum.
double weigh_block(const float* scores, float best, float inverse, float* weights, double* most) {
  Sums sums;
  Vec greatest_weight = splat(0);
  for (int i = 0; i < BLOCK; i += SUMS) {
    UNROLL for (int j = 0; j < Sums::PARTS; j++) {
      Vec exponent = (load(scores + i + j * LANES) - best) * inverse;
      Vec weight = exponent < FAR ? splat(0) : decay(exponent);
      store(weights + i + j * LANES, weight);
      greatest_weight = max(weight, greatest_weight);
      sums.add(j, weight);
    }
  }
  *most = greatest(greatest_weight);
  return sums.total();
}

// By block the sum of its weights and the greatest one, into `sums` and `most`, if its scores reach
// `least`; the weights themselves are kept for blocks that reach `kept`. Returns the sum of all.
double weigh(const Row& row, double best, double least, double kept, float inverse, const Bench& bench) {
  float passing[BLOCK];
  double total = 0;
  for (int b = 0; b < row.blocks(); b++) {
    if (bench.most[b] < least) {
      bench.most[b] = bench.sums[b] = 0;
      continue;
    }
    float* weights = bench.most[b] < kept ? passing : bench.weights + (int64_t)b * BLOCK;
    bench.sums[b] = weigh_block(row.block(b), (float)best, inverse, weights, &bench.most[b]);
    total += bench.sums[b];
  }
  return total;
}

// ---- what min_p, top_k and top_p keep

// Mass and number of the weights of at least `least`, which is above 0.
Measure measure(float least, int blocks, const Bench& bench) {
  Measure all = {0, 0};
  for (int b = 0; b < blocks; b++) {
    if (bench.most[b] < least) continue;
    const float* weights = bench.weights + (int64_t)b * BLOCK;
    Sums sums;
    IntVec count = {};
    for (int i = 0; i < BLOCK; i += SUMS) {
      UNROLL for (int j = 0; j < Sums::PARTS; j++) {
        Vec weight = load(weights + i + j * LANES);
        IntVec is_kept = weight >= least;
        count -= is_kept;
        sums.add(j, (Vec)((IntVec)weight & is_kept));
      }
    }
    all.mass += sums.total();
    for (int i = 0; i < LANES; i++) all.count += count[i];
  }
  return all;
}

INLINE float as_float(int32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}
INLINE int32_t as_bits(float value) {
  int32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

// The tokens with weights from `least` to below `most`, in the order of their indices; returns their end.
int32_t* gather(float least, float most, int blocks, const Bench& bench) {
  int32_t* end = bench.order;
  for (int b = 0; b < blocks; b++) {
    if (bench.most[b] < least) continue;
    for (int i = b * BLOCK; i < (b + 1) * BLOCK; i += LANES) {
      Vec weight = load(bench.weights + i);
      IntVec is_in = (weight >= least) & (weight < most);
      if (is_none(is_in)) continue;
      for (int l = 0; l < LANES; l++) {
        *end = i + l;
        end += is_in[l] != 0;
      }
    }
  }
  return end;
}

// The last token of the shortest prefix of `items` that reaches `target`, which all of them reach but for
// rounding; `are_equal` if they have one weight and are in order. Selects, as for a median.
Cut last_of(bool by_mass, double target, int32_t* items, int32_t* end, bool are_equal, const Bench& bench) {
  const float* weights = bench.weights;
  auto value = [=](int32_t i) { return by_mass ? (double)weights[i] : 1.; };
  auto stands_before = [=](int32_t a, int32_t b) {
    return weights[a] > weights[b] || (weights[a] == weights[b] && a < b);
  };
  double reached = 0;
  Cut cut = EVERYTHING;
  while (!are_equal && end - items > FEW) {
    int32_t pivot = items[(end - items) / 2], *middle = items;
    items[(end - items) / 2] = end[-1];
    double more = 0;
    for (int32_t* i = items; i < end - 1; i++) {
      if (!stands_before(*i, pivot)) continue;
      int32_t item = *i;
      more += value(item);
      *i = *middle;
      *middle++ = item;
    }
    end[-1] = *middle;
    *middle = pivot;
    if (reached + more >= target) end = middle;
    else if (reached + more + value(pivot) >= target) return {weights[pivot], pivot};
    else {
      reached += more + value(pivot);
      cut = {weights[pivot], pivot};
      items = middle + 1;
    }
  }
  if (!are_equal) sort(items, end - items, stands_before);
  for (; items < end; items++) {
    reached += value(*items);
    cut = {weights[*items], *items};
    if (reached >= target) break;
  }
  return cut;
}

// The shortest prefix whose mass, or number, reaches `target`: narrows the range of its last weight, as
// an integer, until few candidates are left in it. Weights from `low` on reach it, as `lowest`. A guess
// goes twice as far from the nearer end as a straight line would, so that mostly the other end comes near
// too; every third halves the range.
Cut prefix(bool by_mass, double target, float low, Measure lowest, float guess, int64_t size,
           const Bench& bench) {
  int blocks = (int)((size + BLOCK - 1) / BLOCK);
  int32_t first = as_bits((float)greater(low, SMALLEST)), last = as_bits(1.f) + 1, middle = as_bits(guess);
  int64_t count = lowest.count;
  Measure above = {0, 0};
  double reached_first = by_mass ? lowest.mass : (double)lowest.count, reached_last = 0;
  for (int round = 1; last - first > 1 && count - above.count > WINDOW; round++) {
    if (middle <= first || middle >= last) middle = first + (last - first) / 2;
    Measure found = measure(as_float(middle), blocks, bench);
    double reached = by_mass ? found.mass : (double)found.count;
    if (reached >= target) {
      first = middle;
      reached_first = reached;
      count = found.count;
    } else {
      last = middle;
      reached_last = reached;
      above = found;
    }
    double share = (target - reached_last) / (reached_first - reached_last), range = last - first;
    if (round % 3 == 0) middle = 0;
    else if (share < 0.25) middle = last - (int32_t)(range * 2 * share) - 1;
    else if (share > 0.75) middle = first + (int32_t)(range * 2 * (1 - share)) + 1;
    else middle = 0;
  }
  int32_t* end = gather(as_float(first), as_float(last), blocks, bench);
  double before = by_mass ? above.mass : (double)above.count;
  return last_of(by_mass, target - before, bench.order, end, last - first == 1, bench);
}

double kept_sum(const float* weights, int64_t start, Cut cut) {
  Sums sums;
  bool takes_equals = start + BLOCK - 1 <= cut.index, is_split = !takes_equals && start <= cut.index;
  for (int i = 0; i < BLOCK; i += SUMS) {
    UNROLL for (int j = 0; j < Sums::PARTS; j++) {
      Vec weight = load(weights + i + j * LANES);
      IntVec is_kept = takes_equals ? weight >= cut.weight : weight > cut.weight;
      if (is_split)
        for (int l = 0; l < LANES; l++) is_kept[l] = -cut.keeps(weight[l], start + i + j * LANES + l);
      sums.add(j, (Vec)((IntVec)weight & is_kept));
    }
  }
  return sums.total();
}

double mass_of(Cut cut, int blocks, const Bench& bench) {
  double mass = 0;
  for (int64_t b = 0; b < blocks; b++)
    if (bench.most[b] >= cut.weight) mass += kept_sum(bench.weights + b * BLOCK, b * BLOCK, cut);
  return mass;
}

Cut cut_of(const Draw& draw, double total, int64_t size, const Bench& bench) {
  int blocks = (int)((size + BLOCK - 1) / BLOCK);
  Cut cut = EVERYTHING;
  if (draw.min_p > 0) cut = {(float)greater(draw.min_p, SMALLEST), size};
  if (draw.top_k > 0 && draw.top_k < size) {
    // blocks have a greatest weight each
    float low = draw.top_k > blocks ? 0 : (float)reached_by(draw.top_k, bench.most, blocks, bench.copy);
    Measure lowest = measure((float)greater(low, SMALLEST), blocks, bench);
    if (lowest.count > draw.top_k)
      cut = shorter(cut, prefix(false, (double)draw.top_k, low, lowest, low, size, bench));
    else if (low > 0) cut = shorter(cut, {low, size});
  }
  if (draw.top_p < 1) {
    double mass = cut.weight > 0 ? mass_of(cut, blocks, bench) : total;
    // lighter tokens have less than 1 - top_p together, so that the others reach it
    float low = (float)(LEAST_SHARE * (1 - draw.top_p) * mass / (double)size);
    float guess = (float)(mass < 500 ? mass * 1e-3 : 0.5);
    cut = shorter(cut, prefix(true, draw.top_p * mass, low, {total, size}, guess, size, bench));
  }
  return cut;
}

// ---- the draw

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

int32_t likeliest(const Row& row, double best, const Bench& bench) {
  int b = 0, i = 0;
  while (bench.most[b] != best) b++;
  while (row.block(b)[i] != best) i++;
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

int32_t pick(const Row& row, const Draw& draw, const Bench& bench) {
  int blocks = row.blocks();
  double best = greatest(bench.most, blocks);
  if (draw.temperature < COLDEST) return likeliest(row, best, bench);
  float inverse = (float)(1 / (draw.temperature < HOTTEST ? draw.temperature : HOTTEST));
  double least = least_of(draw, best, blocks, bench), point = 0;
  double total = weigh(row, best, least, kept_of(draw, best, row.size), inverse, bench);
  Cut cut = cut_of(draw, total, row.size, bench);
  int block = block_of(cut, uniform(draw.seed, draw.position), blocks, bench, &point);
  float again[BLOCK], *weights = bench.weights + (int64_t)block * BLOCK;
  if (cut.weight == 0) weigh_block(row.block(block), (float)best, inverse, weights = again, bench.copy);
  return token_of(cut, weights, block, point);
}

// ---- what may come

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

// ---- log-probabilities, of the logits as the model gave them

void score(const Row& row, Draw& draw, const Bench& bench) {
  int blocks = row.blocks(), count = (int)lesser(draw.num_top, row.size);
  double best = greatest(bench.raw_most, blocks), total = 0, most;
  float block_weights[BLOCK];
  for (int b = 0; b < blocks; b++)
    if (bench.raw_most[b] >= best + FAR)
      total += weigh_block(row.block(b), (float)best, 1, block_weights, &most);
  double base = best + log(total), mine = row.scores[draw.token];
  draw.logprob = mine - base;
  if (draw.wants_rank) {
    draw.rank = 1;
    for (int b = 0; b < blocks; b++)
      if (bench.raw_most[b] > mine)
        for (int i = 0; i < BLOCK; i++) draw.rank += row.block(b)[i] > mine;
  }
  if (count == 0) return;
  double least = -INFINITY;
  if (count <= blocks) least = reached_by(count, bench.raw_most, blocks, bench.copy);
  int32_t* end = bench.order;
  for (int b = 0; b < blocks; b++) {
    if (bench.raw_most[b] < least) continue;
    int64_t start = (int64_t)b * BLOCK, stop = lesser(row.size, start + BLOCK);
    for (int64_t i = start; i < stop; i++)
      if (row.scores[i] >= least) *end++ = (int32_t)i;
  }
  const float* scores = row.scores;
  sort(bench.order, end - bench.order, [=](int32_t a, int32_t b) {
    return scores[a] > scores[b] || (scores[a] == scores[b] && a < b);
  });
  for (int i = 0; i < count; i++) {
    draw.top_ids[i] = bench.order[i];
    draw.top_logprobs[i] = scores[bench.order[i]] - base;
  }
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
  Row row = {logits, bench.tail, size}, scores = row;
  const uint8_t* allowed = draw.forced < 0 ? allowed_of(draw, size, bench) : nullptr;
  draw.status = NO_TOKEN;
  if (allowed && !has_any(allowed, size)) return;
  draw.status = NOT_FINITE;
  bool is_edited = draw.forced < 0 && (allowed || draw.seen || draw.num_counted || draw.num_biased);
  if (is_edited) {
    if (!edit(row, draw, allowed, bench)) return;
    scores = {bench.edited, bench.edited + (row.blocks() - 1ll) * BLOCK, size};
  }
  if (!is_edited || draw.num_top >= 0) {
    if (!survey(row, bench.raw_most)) return;
    if (!is_edited) memcpy(bench.most, bench.raw_most, row.blocks() * sizeof(double));
  }
  draw.token = draw.forced >= 0 ? draw.forced : pick(scores, draw, bench);
  draw.status = DRAWN;
  if (draw.num_top >= 0) score(row, draw, bench);
  remember(draw);
}

}  // namespace nemotrt::NEMOTRT_ISA
