// Blocks of experts: a router's choice, the chosen experts' linears, and their weighted sum.
//
// A choice is a row of 2 K floats: the numbers of a token's K experts, the best first, and their
// weights. Each (token, expert) pair has columns of its own to write, and a token's sum is formed in
// the order of its choice: so a result is the same bits in any batch. A weight holds its experts one
// below the other, each in whole panels; of experts that no token chose, nothing is read.
#pragma once

#include "gemm.h"

namespace {

// A pair's expert; any float is one of them, whatever a program has in these columns.
INLINE int expert_of(const float* choice, int k, int num_experts) {
  float number = choice[k];
  return number >= 0 && number < (float)num_experts ? (int)number : 0;
}

INLINE float sigmoid(float x) { return 1.f / (1.f + expf(-x)); }

// Where the best of `count` values is that is not taken; of equals the first.
INLINE int best_of(const float* values, const float* taken, int count) {
  int best = -1;
  for (int i = 0; i < count; i++)
    if (!taken[i] && (best < 0 || values[i] > values[best])) best = i;
  return most(best, 0);
}

// Takes all experts but those of the groups whose two best are best together.
INLINE void take_groups(const float* ranked, int experts, int groups, int chosen, float* merit, float* taken) {
  int size = experts / groups;
  for (int g = 0; g < groups; g++) {
    const float* values = ranked + g * size;
    int first = best_of(values, taken + g * size, size);
    taken[g * size + first] = 1;
    merit[g] = values[first] + (size > 1 ? values[best_of(values, taken + g * size, size)] : 0);
    taken[g * size + first] = 0;
  }
  float* is_chosen = merit + groups;
  memset(is_chosen, 0, groups * sizeof *is_chosen);
  for (int i = 0; i < chosen; i++) is_chosen[best_of(merit, is_chosen, groups)] = 1;
  for (int e = 0; e < experts; e++) taken[e] = 1 - is_chosen[e / size];
}

// One job is a token. Sizes: K, groups, chosen groups, whether weights are normalized.
void route(const Machine& machine, const Op& op, Range tokens, float* scratch) {
  int experts = op.sources[0].width, chosen = op.sizes[0], groups = op.sizes[1];
  const float* bias = values(machine, op.tensors[0]);
  float *ranked = scratch, *taken = ranked + experts, *merit = taken + experts;
  for (int token = tokens.first; token < tokens.last; token++) {
    const float* scores = row_of(machine, op.sources[0], token);
    float *choice = target_row(machine, op, token), *weights = choice + chosen, total = 0;
    for (int e = 0; e < experts; e++) ranked[e] = sigmoid(scores[e]) + bias[e];
    memset(taken, 0, experts * sizeof *taken);
    if (op.sizes[2] < groups) take_groups(ranked, experts, groups, op.sizes[2], merit, taken);
    for (int k = 0; k < chosen; k++) {
      int e = best_of(ranked, taken, experts);
      taken[e] = 1;
      choice[k] = (float)e;
      weights[k] = sigmoid(scores[e]);
      total += weights[k];
    }
    float factor = op.sizes[3] ? op.reals[0] / (total + 1e-20f) : op.reals[0];
    for (int k = 0; k < chosen; k++) weights[k] *= factor;
  }
}

// The pairs of a step by their experts: those of expert e are pairs[starts[e]] to pairs[starts[e + 1]],
// and pair p is the choice p % K of token p / K.
struct Pairs {
  int32_t *starts, *pairs;
};

INLINE Pairs sort_pairs(const Machine& machine, const Op& op, int tokens, int32_t* memory) {
  int experts = op.sizes[0], chosen = op.sizes[1];
  Pairs found = {memory, memory + experts + 1};
  memset(found.starts, 0, (experts + 1) * sizeof *found.starts);
  for (int token = 0; token < tokens; token++) {
    const float* choice = row_of(machine, op.sources[1], token);
    for (int k = 0; k < chosen; k++) found.starts[expert_of(choice, k, experts)]++;
  }
  for (int e = 0, end = 0; e <= experts; e++) found.starts[e] = end += found.starts[e];
  for (int token = tokens - 1; token >= 0; token--) {  // from the last: starts[e] goes down to the first
    const float* choice = row_of(machine, op.sources[1], token);
    for (int k = chosen - 1; k >= 0; k--)
      found.pairs[--found.starts[expert_of(choice, k, experts)]] = token * chosen + k;
  }
  return found;
}

INLINE int expert_panels(const Machine& machine, const Op& op) {
  return machine.tensors[op.tensors[0]].rows / op.sizes[0] / PANEL;
}

// At most so many experts are chosen in a step.
INLINE int most_chosen(const Op& op, int tokens) {
  return (int)((int64_t)tokens * op.sizes[1] < op.sizes[0] ? tokens * op.sizes[1] : op.sizes[0]);
}

// An operand for `rows` rows in a thread's memory, for a weight of this kind.
INLINE Buffer operand_in(float* memory, int kind, int64_t depth, int rows) {
  Buffer operand = {operand_of(kind), (int32_t)depth, nullptr, nullptr, nullptr, nullptr};
  if (operand.format == OPERAND_INT8) {
    operand.cells = (int32_t*)memory;
  } else if (operand.format == OPERAND_INT16) {
    operand.scales = memory;
    operand.codes = (int16_t*)(memory + round_up((int64_t)rows * blocks_of(depth), PANEL));
  } else {
    operand.rows = memory;
  }
  return operand;
}

// Some panels of one expert over its pairs, into their columns. Sizes: experts, K, inputs, whether
// a positive result is squared and a negative one zero. The source has a row for a token, or for a pair.
INLINE void one_expert(const Machine& machine, const Op& op, int expert, Range panels, const int32_t* pairs,
                       int count, float* scratch) {
  const Tensor& weight = machine.tensors[op.tensors[0]];
  int chosen = op.sizes[1], width = op.sizes[2], segment = (int)round_up(width, PANEL);
  bool is_each = op.sources[0].width == chosen * segment;
  int64_t depth = depth_of(weight.kind, width), first = (int64_t)expert * expert_panels(machine, op) + panels.first;
  float* memory = scratch + depth;
  Buffer buffers[2] = {operand_in(memory, weight.kind, depth, count), {}};
  for (int group = 0; group < groups_of(count); group++) {
    Place place = {first_of(group, count), first_of(group + 1, count) - first_of(group, count)};
    for (int i = place.first; i < place.first + place.tokens; i++) {
      const float* x = row_of(machine, op.sources[0], pairs[i] / chosen);
      memcpy(scratch, x + (is_each ? pairs[i] % chosen * segment : 0), width * sizeof *x);
      pack(buffers[0], scratch, width, i, place);
    }
  }
  int columns = (panels.last - panels.first) * PANEL;
  float* out = memory + operand_elements(depth, count);
  buffers[1] = {ROWS, columns, out, nullptr, nullptr, nullptr};
  Machine part = machine;
  part.buffers = buffers;
  Op product = {};
  product.sources[0].buffer = 0;
  product.target = {1, (int32_t)(-first * PANEL), columns};
  memcpy(product.tensors, op.tensors, sizeof op.tensors);
  linear(part, product, count, {(int32_t)first, (int32_t)first + panels.last - panels.first});
  int stride = op.target.width / chosen;
  for (int i = 0; i < count; i++) {
    float* y = target_row(machine, op, pairs[i] / chosen) + pairs[i] % chosen * stride + panels.first * PANEL;
    const float* found = out + (int64_t)i * columns;
    for (int c = 0; c < columns; c += LANES) {
      Vec v = load(found + c), positive = max(v, splat(0));
      store(y + c, op.sizes[3] ? positive * positive : v);
    }
  }
}

// One job is a panel of a chosen expert.
void experts(const Machine& machine, const Op& op, int tokens, Range jobs, float* scratch) {
  int num_experts = op.sizes[0], panels = expert_panels(machine, op);
  Pairs sorted = sort_pairs(machine, op, tokens, (int32_t*)scratch);
  scratch += round_up(num_experts + 1 + (int64_t)tokens * op.sizes[1], PANEL);
  for (int e = 0, job = 0; e < num_experts && job < jobs.last; e++) {
    int first = sorted.starts[e], count = sorted.starts[e + 1] - first;
    if (!count) continue;
    Range own = {most(jobs.first - job, 0), least(jobs.last - job, panels)};
    for (int i = 0; i < count && own.first < own.last; i += EXPERT_ROWS)
      one_expert(machine, op, e, own, sorted.pairs + first + i, least(EXPERT_ROWS, count - i), scratch);
    job += panels;
  }
}

}  // namespace
