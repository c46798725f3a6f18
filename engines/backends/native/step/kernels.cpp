// One thread's way through a program. Compiled once for each instruction set.
//
// Threads claim chunks of a phase's jobs and go on when all of its chunks are done: a thread that the
// system has put aside between two chunks holds nobody up.

#include <time.h>

#include "attention.h"
#include "drafts.h"
#include "experts.h"
#include "mamba.h"

namespace {

constexpr int CHUNKS_A_THREAD = 8;

INLINE int rows_of(const Step& step, const Op& op) {
  return op.rows == TOKENS ? step.num_tokens : step.num_rows;
}

// How many jobs a phase of an operation has, 0 if it has no such phase.
int jobs_of(const Machine& machine, const Step& step, const Op& op, int phase) {
  if (op.kind == ATTENTION) {
    int splits = splits_of(machine, step, op), pairs = step.num_tokens * op.sizes[1];
    return phase == 0 ? step.num_tokens : phase == 1 ? pairs * splits : splits > 1 ? pairs : 0;
  }
  if (phase) return 0;
  switch (op.kind) {
    case EMBED: return step.num_tokens;
    case LAST_TOKEN: return step.num_rows;
    case LINEAR: return rows_of(step, op) ? panels_of(machine, op) : 0;
    case CONV: return step.num_sequences * channel_blocks(op);
    case SCAN: return step.num_sequences * op.sizes[0];
    case ROUTE: return step.num_tokens;
    case EXPERTS: return most_chosen(op, step.num_tokens) * expert_panels(machine, op);
    default: return groups_of(rows_of(step, op));
  }
}

// Whether a linear runs on matrix units. Sums of int8 are the same integers there, so it may depend on the
// batch. Those of bf16 are not the same floats, so it does not.
INLINE bool is_on_tiles(const Machine& machine, const Step& step, const Op& op) {
  int kind = machine.tensors[op.tensors[0]].kind;
  return machine.matrix && (kind == PANELS_BF16 || (kind == PANELS_INT8 && rows_of(step, op) > MATRIX_TOKENS));
}

// Into how many chunks the jobs of a phase are cut. Queries that share keys stay together, as many as go
// through them at once, unless threads would then be idle.
int chunks_of(const Machine& machine, const Step& step, const Op& op, int phase) {
  int jobs = jobs_of(machine, step, op, phase), most_chunks = CHUNKS_A_THREAD * machine.num_threads;
  if (op.kind == ATTENTION && phase == 1 && splits_of(machine, step, op) == 1) {
    int together = least(ATTENTION_QUERIES / (op.sizes[0] / op.sizes[1]), step.num_tokens / step.num_sequences);
    most_chunks = least(most_chunks, most(machine.num_threads, jobs / most(together, 1)));
  }
  if (op.kind == LINEAR && is_on_tiles(machine, step, op) && rows_of(step, op) > GROUP)
    most_chunks = 2 * machine.num_threads;
  return least(jobs, most_chunks);
}

void run_jobs(const Machine& machine, const Step& step, const Op& op, int phase, Range jobs, float* scratch) {
  switch (op.kind) {
    case EMBED: return embed(machine, step, op, jobs);
    case LINEAR:
      if (is_on_tiles(machine, step, op)) machine.matrix(machine, op, rows_of(step, op), jobs, scratch);
      else linear(machine, op, rows_of(step, op), jobs);
      if (step.has_adapters) lora_up(machine, step, op, rows_of(step, op), jobs);
      return;
    case CONV: return causal_conv(machine, step, op, jobs);
    case SCAN: return scan(machine, step, op, jobs, scratch);
    case LAST_TOKEN: return last_token(machine, step, op, jobs);
    case ROUTE: return route(machine, op, jobs, scratch);
    case EXPERTS: return experts(machine, op, step.num_tokens, jobs, scratch);
    case ATTENTION:
      if (phase == 0) return place_heads(machine, step, op, jobs, scratch);
      if (phase == 2) return merge_parts(machine, step, op, jobs, scratch);
      if (splits_of(machine, step, op) > 1) return attend_parts(machine, step, op, jobs, scratch);
      return attend(machine, step, op, jobs, scratch);
    default: return row_operation(machine, step, op, rows_of(step, op), jobs, scratch);
  }
}

// Linears of one operand write columns of their own: no thread has to wait between them.
bool is_independent(const Op& op, const Op& next) {
  return op.kind == LINEAR && next.kind == LINEAR && op.sources[0].buffer == next.sources[0].buffer;
}

double now() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec + 1e-9 * time.tv_nsec;
}

}  // namespace

namespace nemotrt::NEMOTRT_ISA {

void run(const Machine& machine, const Step& step, const Shared& shared, int thread) {
  float* scratch = machine.scratch + thread * machine.scratch_stride;
  for (int i = 0, waited = 0; i < machine.num_ops; i++) {
    const Op& op = machine.ops[i];
    for (int p = 0; p < PHASES; p++) {
      int64_t jobs = jobs_of(machine, step, op, p);
      int chunks = chunks_of(machine, step, op, p);
      Phase& phase = shared.phases[i * PHASES + p];
      int chunk;
      while (chunks && (chunk = __atomic_fetch_add(&phase.claimed, 1, __ATOMIC_RELAXED)) < chunks) {
        Range range = {(int32_t)(jobs * chunk / chunks), (int32_t)(jobs * (chunk + 1) / chunks)};
        run_jobs(machine, step, op, p, range, scratch);
        if (__atomic_add_fetch(&phase.done, 1, __ATOMIC_SEQ_CST) < chunks) continue;
        shared.ends[i * PHASES + p] = now();
        announce(*shared.bell);
      }
      if (op.kind == ATTENTION) sleep_until(*shared.bell, phase, chunks);
    }
    if (i + 1 < machine.num_ops && is_independent(op, machine.ops[i + 1])) continue;
    for (; waited <= i; waited++) {
      int chunks = chunks_of(machine, step, machine.ops[waited], 0);
      sleep_until(*shared.bell, shared.phases[waited * PHASES], chunks);
    }
  }
}

// No operation waits for another: each has states of its own.
void accept(const Machine& machine, const Step& step, const Shared& shared, int thread) {
  (void)thread;
  for (int i = 0; i < machine.num_ops; i++) {
    const Op& op = machine.ops[i];
    if (op.kind != CONV && op.kind != SCAN) continue;
    int64_t jobs = jobs_of(machine, step, op, 0);
    int chunks = (int)least(jobs, CHUNKS_A_THREAD * machine.num_threads), chunk;
    while ((chunk = __atomic_fetch_add(&shared.phases[i * PHASES].claimed, 1, __ATOMIC_RELAXED)) < chunks)
      accept_jobs(machine, step, op, {(int32_t)(jobs * chunk / chunks), (int32_t)(jobs * (chunk + 1) / chunks)});
  }
}

}  // namespace nemotrt::NEMOTRT_ISA
