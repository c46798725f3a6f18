// Drafts: tokens that may turn out wrong. A step leaves the windows and states of their sequence as they
// were and notes what would change them. Those that are accepted change them later, by the same operations
// in the same order: the bits are those of a step that was sure of them.
#pragma once

#include "mamba.h"

namespace {

// The notes of an operation on a slot's draft: a row for each token.
INLINE float* note_of(const Machine& machine, const Op& op, int slot, int token) {
  const Notes& notes = machine.notes[&op - machine.ops];
  return notes.data + ((int64_t)slot * machine.max_draft + token) * notes.width;
}

void note_inputs(const Machine& machine, const Op& op, int slot, const float* in, int64_t in_stride, int count,
                 int channel, int width) {
  for (int t = 0; t < count; t++)
    memcpy(note_of(machine, op, slot, t) + channel, in + t * in_stride, width * sizeof(float));
}

// A scan's note of a token: x, B of each group, decay and step of each head.
struct ScanNote {
  float *x, *b, *decays, *steps;
};
INLINE ScanNote scan_note(const Machine& machine, const Op& op, int slot, int token) {
  float* x = note_of(machine, op, slot, token);
  float* b = x + op.sizes[0] * op.sizes[1];
  float* decays = b + op.sizes[3] * op.sizes[2];
  return {x, b, decays, decays + op.sizes[0]};
}

// Rows of a head's state, on a copy of them.
template <int R, typename S>
INLINE void draft_rows(const Machine& machine, const Op& op, int first, int count, int head, int row,
                       const float* decays, const float* steps, const S* state, float skip, float* scratch) {
  int64_t start = (int64_t)row * op.sizes[2];
  memcpy(scratch, state + start, R * op.sizes[2] * sizeof(S));
  scan_rows<R>(machine, op, first, count, head, row, decays, steps, (S*)scratch, skip);
}

template <typename S>
void scan_draft(const Machine& machine, const Op& op, const Sequence& sequence, int first, int head,
                const float* decays, const float* steps, const S* state, float skip, float* scratch) {
  int head_dim = op.sizes[1], size = op.sizes[2], heads = op.sizes[0] / op.sizes[3], row = 0;
  for (; row + 4 <= head_dim; row += 4)
    draft_rows<4>(machine, op, first, sequence.count, head, row, decays, steps, state, skip, scratch);
  for (; row < head_dim; row++)
    draft_rows<1>(machine, op, first, sequence.count, head, row, decays, steps, state, skip, scratch);
  for (int t = 0; t < sequence.count; t++) {
    ScanNote note = scan_note(machine, op, sequence.slot, t);
    const float* x = row_of(machine, op.sources[0], first + t) + head * head_dim;
    const float* b = row_of(machine, op.sources[1], first + t) + head / heads * size;
    memcpy(note.x + head * head_dim, x, head_dim * sizeof(float));
    if (head % heads == 0) memcpy(note.b + head / heads * size, b, size * sizeof(float));
    note.decays[head] = decays[t];
    note.steps[head] = steps[t];
  }
}

// Rows of a head's state behind the accepted tokens; what they put out was put out before.
template <int R, typename S>
INLINE void accept_rows(const Machine& machine, const Op& op, const Sequence& accepted, int head, int row,
                        S* state) {
  int size = op.sizes[2], group = head / (op.sizes[0] / op.sizes[3]);
  float unheard[R];
  for (int t = 0; t < accepted.count; t++) {
    ScanNote note = scan_note(machine, op, accepted.slot, t);
    const float *x = note.x + head * op.sizes[1] + row, *b = note.b + group * size;
    S* place = state + (int64_t)row * size;
    if (size % LANES == 0)
      advance<R, true>(place, size, note.decays[head], x, note.steps[head], b, b, 0, unheard, false);
    else
      advance<R, false>(place, size, note.decays[head], x, note.steps[head], b, b, 0, unheard, false);
  }
}

// One job is a sequence and a head.
template <typename S>
void accept_states(const Machine& machine, const Step& step, const Op& op, Range jobs) {
  const StateSpec& states = machine.states[op.states[0]];
  int heads = op.sizes[0], head_dim = op.sizes[1], size = op.sizes[2];
  for (int job = jobs.first; job < jobs.last; job++) {
    const Sequence& accepted = step.sequences[job / heads];
    int head = job % heads, row = 0;
    S* state = (S*)states.data + accepted.slot * states.slot_elements + (int64_t)head * head_dim * size;
    for (; row + 4 <= head_dim; row += 4) accept_rows<4>(machine, op, accepted, head, row, state);
    for (; row < head_dim; row++) accept_rows<1>(machine, op, accepted, head, row, state);
  }
}

// One job is a sequence and a block of channels.
void accept_windows(const Machine& machine, const Step& step, const Op& op, Range jobs) {
  const StateSpec& states = machine.states[op.states[0]];
  int channels = op.target.width, taps = op.sizes[0] - 1, blocks = channel_blocks(op);
  for (int job = jobs.first; job < jobs.last; job++) {
    const Sequence& accepted = step.sequences[job / blocks];
    int channel = job % blocks * CHANNEL_BLOCK, width = least(CHANNEL_BLOCK, channels - channel);
    float* window = (float*)states.data + accepted.slot * states.slot_elements + channel;
    for (int j = 0; j < taps; j++) {
      int token = accepted.count + j - taps;  // negative: it is in the window still
      const float* from = token < 0 ? window + (int64_t)(token + taps) * channels
                                    : note_of(machine, op, accepted.slot, token) + channel;
      memcpy(window + (int64_t)j * channels, from, width * sizeof(float));
    }
  }
}

// The jobs of a scan or a convolution once more, for the tokens that are accepted.
void accept_jobs(const Machine& machine, const Step& step, const Op& op, Range jobs) {
  if (op.kind == CONV) return accept_windows(machine, step, op, jobs);
  if (machine.states[op.states[0]].format == FLOAT16) return accept_states<uint16_t>(machine, step, op, jobs);
  return accept_states<float>(machine, step, op, jobs);
}

}  // namespace
