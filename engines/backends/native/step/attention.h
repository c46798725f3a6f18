// Causal grouped-query attention over the slot's own cache, rows of [kv_heads, max_seq_len].
//
// The query heads of a KV head and of successive tokens are queries of the same keys, and go through
// them together. Spans of SPAN keys have a softmax of their own and are merged one after the other: a
// span is the same bits as one thread's work among others or as a job of its own.
#pragma once

#include "attention_tiles.h"

namespace {

INLINE Cache cache_of(const Machine& machine, const StateSpec& state, int slot, int head, int depth) {
  int64_t bytes = cache_row_bytes(depth, state.format), heads_rows = (int64_t)head * machine.max_seq_len;
  char* slot_rows = (char*)state.data + slot * state.slot_elements * STATE_BYTES[state.format];
  return {slot_rows + heads_rows * bytes, bytes, state.format};
}

// Normalizes and rotates one head of a query or key as the model asks; `out` may be `x`.
INLINE void place_head(const Machine& machine, const Op& op, const float* x, int norm, int position,
                       float* out) {
  int depth = op.sizes[2], half = depth / 2;
  if (norm >= 0)
    rms_norm(x, values(machine, norm), depth, op.reals[0], out);
  else if (out != x)
    memcpy(out, x, depth * sizeof(float));
  if (op.tensors[2] < 0) return;
  const float* cosine = values(machine, op.tensors[2]) + (int64_t)position * half;
  const float* sine = values(machine, op.tensors[3]) + (int64_t)position * half;
  for (int k = 0; k < half; k += LANES) {
    int n = half - k;
    Vec a = load(out + k, n), b = load(out + half + k, n), c = load(cosine + k, n), s = load(sine + k, n);
    store(out + k, a * c - b * s, n);
    store(out + half + k, b * c + a * s, n);
  }
}

// Queries in place, keys and values into the cache.
void place_heads(const Machine& machine, const Step& step, const Op& op, Range rows, float* scratch) {
  int q_heads = op.sizes[0], kv_heads = op.sizes[1], depth = op.sizes[2];
  for (int row = rows.first; row < rows.last; row++) {
    int owner = step.owners[row];
    const Sequence& sequence = step.sequences[owner];
    int position = sequence.past + row - step.starts[owner];
    float* q = const_cast<float*>(row_of(machine, op.sources[0], row));
    const float *k = row_of(machine, op.sources[1], row), *v = row_of(machine, op.sources[2], row);
    for (int h = 0; h < q_heads; h++)
      place_head(machine, op, q + h * depth, op.tensors[0], position, q + h * depth);
    for (int h = 0; h < kv_heads; h++) {
      Cache keys = cache_of(machine, machine.states[op.states[0]], sequence.slot, h, depth);
      Cache vals = cache_of(machine, machine.states[op.states[1]], sequence.slot, h, depth);
      place_head(machine, op, k + h * depth, op.tensors[1], position, scratch);
      keep_row(keys, position, scratch, depth);
      keep_row(vals, position, v + h * depth, depth);
    }
  }
}

// Takes queries through a span of keys.
void attend_span(const Machine& machine, const Op& op, int slot, int head, const Queries& queries, int span) {
  int depth = op.sizes[2], end = least(queries.held[queries.count - 1], (span + 1) * SPAN);
  Cache keys = cache_of(machine, machine.states[op.states[0]], slot, head, depth);
  Cache vals = cache_of(machine, machine.states[op.states[1]], slot, head, depth);
  for (int i = 0; i < queries.count; i++) queries.part(i).clear(depth);
  for (int start = span * SPAN; start < end; start += KEY_BLOCK) attend_block(queries, keys, vals, start);
}

INLINE int held_by(const Step& step, int row) {
  int owner = step.owners[row];
  return step.sequences[owner].past + row - step.starts[owner] + 1;
}
INLINE int spans_of(int held) { return (held + SPAN - 1) / SPAN; }

INLINE void finish(const Part& whole, int depth, float* out) {
  float factor = 1.f / whole.softmax[1];
  for (int k = 0; k < depth; k += LANES) store(out + k, load(whole.values + k) * factor, depth - k);
}

// Some tokens of one sequence and a KV head. Their queries share the keys while they are in cache.
void attend_rows(const Machine& machine, const Step& step, const Op& op, int head, Range rows,
                 float* scratch) {
  int depth = op.sizes[2], shared = op.sizes[0] / op.sizes[1];
  int slot = step.sequences[step.owners[rows.first]].slot, total = (rows.last - rows.first) * shared;
  int times = (total + ATTENTION_QUERIES - 1) / ATTENTION_QUERIES;
  Queries queries(scratch, depth);
  for (int time = 0, first = 0; time < times; time++, first += queries.count) {
    queries.count = total * (time + 1) / times - first;
    for (int i = 0; i < queries.count; i++) {
      int row = rows.first + (first + i) / shared, h = head * shared + (first + i) % shared;
      queries.put(i, row_of(machine, op.sources[0], row) + h * depth, held_by(step, row));
      queries.whole(i).clear(depth);
    }
    for (int span = 0; span < spans_of(queries.held[queries.count - 1]); span++) {
      attend_span(machine, op, slot, head, queries, span);
      for (int i = 0; i < queries.count; i++)
        if (span < spans_of(queries.held[i])) merge(queries.whole(i), queries.part(i), depth);
    }
    for (int i = 0; i < queries.count; i++) {
      int row = rows.first + (first + i) / shared, h = head * shared + (first + i) % shared;
      finish(queries.whole(i), depth, target_row(machine, op, row) + h * depth);
    }
  }
}

// Into how many jobs the keys are split: more than one where there are too few tokens for all threads.
INLINE int splits_of(const Machine& machine, const Step& step, const Op& op) {
  bool is_short = (int64_t)step.num_tokens * op.sizes[1] < machine.num_threads * SPLIT_BELOW;
  return is_short ? spans_of(step.longest) : 1;
}

// One job is a KV head and a token; those of one sequence that follow each other are done together.
void attend(const Machine& machine, const Step& step, const Op& op, Range jobs, float* scratch) {
  for (int job = jobs.first, taken; job < jobs.last; job += taken) {
    int head = job / step.num_tokens, row = job % step.num_tokens, owner = step.owners[row];
    int end = step.starts[owner] + step.sequences[owner].count;
    taken = least(jobs.last - job, end - row);
    attend_rows(machine, step, op, head, {row, row + taken}, scratch);
  }
}

// One job is a KV head, a token and a span of its keys.
void attend_parts(const Machine& machine, const Step& step, const Op& op, Range jobs, float* scratch) {
  int depth = op.sizes[2], shared = op.sizes[0] / op.sizes[1], splits = splits_of(machine, step, op);
  Queries queries(scratch, depth);
  for (int job = jobs.first; job < jobs.last; job++) {
    int pair = job / splits, span = job % splits, head = pair / step.num_tokens, row = pair % step.num_tokens;
    int held = held_by(step, row), slot = step.sequences[step.owners[row]].slot;
    if (span >= spans_of(held)) continue;
    const float* q = row_of(machine, op.sources[0], row) + (int64_t)head * shared * depth;
    for (int first = 0; first < shared; first += queries.count) {
      queries.count = least(ATTENTION_QUERIES, shared - first);
      queries.parts = machine.parts + ((int64_t)job * shared + first) * part_elements(depth);
      for (int i = 0; i < queries.count; i++) queries.put(i, q + (first + i) * depth, held);
      attend_span(machine, op, slot, head, queries, span);
    }
  }
}

// One job is a KV head and a token: its spans are merged.
void merge_parts(const Machine& machine, const Step& step, const Op& op, Range jobs, float* scratch) {
  int depth = op.sizes[2], shared = op.sizes[0] / op.sizes[1], splits = splits_of(machine, step, op);
  for (int job = jobs.first; job < jobs.last; job++) {
    int head = job / step.num_tokens, row = job % step.num_tokens;
    for (int h = 0; h < shared; h++) {
      Part whole(scratch, depth);
      whole.clear(depth);
      for (int span = 0; span < spans_of(held_by(step, row)); span++) {
        int64_t place = ((int64_t)job * splits + span) * shared + h;
        merge(whole, {machine.parts + place * part_elements(depth), depth}, depth);
      }
      finish(whole, depth, target_row(machine, op, row) + (head * shared + h) * depth);
    }
  }
}

}  // namespace
