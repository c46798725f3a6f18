// What min_p, top_k and top_p keep of the weights.
#pragma once

#include "lanes.h"

namespace {

constexpr double LEAST_SHARE = 0.5;  // of 1 - top_p: what lighter tokens than the lightest kept have
constexpr int WINDOW = 4096;         // candidates among which the last kept one is selected
constexpr int FEW = 16;              // of them are sorted
constexpr float SMALLEST = 1e-14f;   // below every weight but 0

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

}  // namespace
