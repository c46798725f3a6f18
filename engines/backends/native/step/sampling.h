// One sequence's next token: what crosses the C boundary, mirrored in engines/backends/native/library/draw.py.
#pragma once

#include <cstdint>

namespace nemotrt {

enum DrawStatus : int32_t { DRAWN, NOT_FINITE, NO_TOKEN };

// A sequence's settings and memory, kept from step to step. Bits count from the lowest of each byte.
struct Draw {
  const uint8_t* allowed;  // bits [vocab] of what may come, or nullptr: every token
  uint8_t* seen;           // bits [vocab] of prompt and output, nullptr without a repetition penalty
  int32_t* counted;        // distinct output tokens, room for all; nullptr without other penalties
  int32_t* counts;         // how often each came
  const int32_t* biased;   // tokens, to whose logits `biases` are added
  const double* biases;
  const int32_t* ends;     // what may not come before min_tokens are out
  int32_t* top_ids;        // [num_top], written
  double* top_logprobs;    // [num_top], written
  uint64_t seed, position;  // of the random number; position counts the tokens so far
  double temperature, top_p, min_p;  // temperature 0: the likeliest
  double repetition, presence, frequency;
  double logprob;          // of `token`, written where num_top is not negative
  int64_t rank;            // of `token` where it is wanted, written: the likeliest has 1
  int64_t top_k;           // 0: every token
  int32_t num_counted, num_biased, num_ends, min_tokens;
  int32_t num_top;         // likeliest tokens wanted beside the log-probability, -1 for neither
  int32_t wants_rank;
  int32_t forced;          // the token whatever the logits say, or -1
  int32_t token, status;   // written
};

struct DrawBatch {
  Draw* const* draws;
  const int32_t* rows;  // which row of the logits is each one's
  const float* logits;
  int64_t stride;       // of a row, in logits; 0 where all are one
  int32_t num_draws, num_rows, vocab_size;
};

constexpr int SAMPLING_BLOCK = 256;  // scores that share one greatest and one sum

// The working memory of one thread; blocks cover the vocabulary.
struct Bench {
  float* weights;    // [blocks, SAMPLING_BLOCK]
  float* changed;    // [blocks, SAMPLING_BLOCK], scores: logits with penalties and biases
  const float** blocks;  // [blocks], where a block's scores are: in the logits, `changed` or `tail`
  uint8_t* allowed;  // bits [blocks, SAMPLING_BLOCK]
  float* tail;       // [SAMPLING_BLOCK], a row's last block, filled up
  double* most;      // [blocks], the greatest score that may come; of weights later
  double* raw_most;  // [blocks], the greatest logit
  double* sums;      // [blocks], of weights
  double* copy;      // [blocks]
  int32_t* order;    // [vocab]
};

}  // namespace nemotrt
