// The scan of a decode step, by how it goes through the states of a step.
//
// `four_rows`: four rows side by side, as the engine did until 2026-11. `rows`: row after row, as it does now.
// Behind them passes that write once in K steps and until then read the state and what the last tokens add to
// it: `exact` repeats the additions of the tokens kept on registers, in the engine's order (the same bits);
// `summed` adds the tokens' own part of the output, y = decay C h + sum of w_j (B_j C) x_j (other roundings).
// The ways take turns; each is compared with `rows` of the same turn. One JSON object for each K: the median
// and the least of the ratios.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <sys/mman.h>
#include <thread>
#include <time.h>
#include <vector>

#include "mamba.h"

namespace {

constexpr int HEADS = 128, HEAD_DIM = 80, SIZE = 128, GROUPS = 8, MAX_KEPT = 16, TURNS = 7;
constexpr int64_t STATE = (int64_t)HEADS * HEAD_DIM * SIZE;
constexpr int VECTORS_A_ROW = SIZE / LANES, HELD = VECTORS_A_ROW == 8 ? 2 : 1;  // rows in registers

double now() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return t.tv_sec + 1e-9 * t.tv_nsec;
}

// What a token brings to one sequence's scan of one layer.
struct Token {
  float x[HEADS * HEAD_DIM], b[GROUPS * SIZE], c[GROUPS * SIZE], decays[HEADS], steps[HEADS];
};

void four_rows(float* state, const Token& token, int head, float* y) {
  const float *b = token.b + head / (HEADS / GROUPS) * SIZE, *c = token.c + head / (HEADS / GROUPS) * SIZE;
  for (int row = 0; row < HEAD_DIM; row += 4)
    advance<4, true>(state + row * SIZE, SIZE, token.decays[head], token.x + head * HEAD_DIM + row, token.steps[head],
                     b, c, 1.f, y + row, true);
}

void rows(float* state, const Token& token, int head, float* y) {
  const float *b = token.b + head / (HEADS / GROUPS) * SIZE, *c = token.c + head / (HEADS / GROUPS) * SIZE;
  for (int row = 0; row < HEAD_DIM; row++)
    advance<1, true>(state + row * SIZE, SIZE, token.decays[head], token.x + head * HEAD_DIM + row, token.steps[head],
                     b, c, 1.f, y + row, true);
}

// The output behind `count` tokens of which the state has none yet.
template <bool WRITES>
void exact(float* state, const Token* tokens, int count, int head, float* y) {
  int group = head / (HEADS / GROUPS);
  for (int row = 0; row < HEAD_DIM; row += HELD) {
    Vec held[HELD][VECTORS_A_ROW];
    UNROLL for (int r = 0; r < HELD; r++) UNROLL for (int v = 0; v < VECTORS_A_ROW; v++) {
      float* place = state + (row + r) * SIZE + v * LANES;
      __builtin_prefetch(place + PREFETCH_ROWS * SIZE, WRITES);
      held[r][v] = load(place);
    }
    for (int t = 0; t < count; t++) {
      const Token& token = tokens[t];
      const float* x = token.x + head * HEAD_DIM + row;
      Vec decay = splat(token.decays[head]), in[HELD];
      UNROLL for (int r = 0; r < HELD; r++) in[r] = splat(x[r] * token.steps[head]);
      UNROLL for (int v = 0; v < VECTORS_A_ROW; v++) {
        Vec b = load(token.b + group * SIZE + v * LANES);
        UNROLL for (int r = 0; r < HELD; r++) {
          held[r][v] = b * in[r] + decay * held[r][v];
          PIN(held[r][v]);
        }
      }
    }
    const Token& last = tokens[count - 1];
    UNROLL for (int r = 0; r < HELD; r++) {
      Vec total = splat(0);
      UNROLL for (int v = 0; v < VECTORS_A_ROW; v++) {
        total = held[r][v] * load(last.c + group * SIZE + v * LANES) + total;
        if (WRITES) store(state + (row + r) * SIZE + v * LANES, held[r][v]);
      }
      y[row + r] = sum(total) + last.x[head * HEAD_DIM + row + r];
    }
  }
}

void summed(const float* state, const Token* tokens, int count, int head, float* y) {
  int group = head / (HEADS / GROUPS);
  const Token& last = tokens[count - 1];
  const float* c = last.c + group * SIZE;
  float weights[MAX_KEPT], decay = 1;
  for (int t = count - 1; t >= 0; t--) {
    Vec total = splat(0);
    for (int k = 0; k < SIZE; k += LANES) total = load(tokens[t].b + group * SIZE + k) * load(c + k) + total;
    weights[t] = decay * tokens[t].steps[head] * sum(total);
    decay *= tokens[t].decays[head];
  }
  for (int row = 0; row < HEAD_DIM; row += HELD)
    UNROLL for (int r = 0; r < HELD; r++) {
      Vec total = splat(0);
      UNROLL for (int v = 0; v < VECTORS_A_ROW; v++) {
        const float* place = state + (row + r) * SIZE + v * LANES;
        __builtin_prefetch(place + PREFETCH_ROWS * SIZE);
        total = load(place) * load(c + v * LANES) + total;
      }
      y[row + r] = decay * sum(total);
    }
  for (int t = 0; t < count; t++)
    for (int row = 0; row < HEAD_DIM; row += LANES) {
      float weight = weights[t] + (t == count - 1);
      store(y + row, load(tokens[t].x + head * HEAD_DIM + row) * weight + load(y + row));
    }
}

enum Way { BY_ROWS, BY_FOUR_ROWS, EXACT, SUMMED, WAYS };
constexpr const char* NAMES[] = {"rows", "four_rows", "exact", "summed"};

// K steps of one thread's sequences, layer by layer as a step goes; returns the thread's seconds.
double turn(Way way, int kept, float* states, int layers, int sequences, const Token* tokens, float* y) {
  double start = now();
  for (int step = 0; step < kept; step++)
    for (int item = 0; item < layers * sequences; item++)
      for (int head = 0; head < HEADS; head++) {
        float* state = states + item * STATE + (int64_t)head * HEAD_DIM * SIZE;
        float* out = y + head * HEAD_DIM;
        if (way == BY_ROWS) rows(state, tokens[step], head, out);
        else if (way == BY_FOUR_ROWS) four_rows(state, tokens[step], head, out);
        else if (step + 1 == kept) exact<true>(state, tokens, kept, head, out);
        else if (way == EXACT) exact<false>(state, tokens, step + 1, head, out);
        else summed(state, tokens, step + 1, head, out);
      }
  return now() - start;
}

struct Memory {
  std::vector<float*> states;
  std::vector<Token> tokens;
  std::vector<float> y;
};

double run(Memory& memory, Way way, int kept, int layers, int sequences) {
  int threads = (int)memory.states.size();
  std::vector<double> seconds(threads);
  std::vector<std::thread> team;
  for (int i = 0; i < threads; i++)
    team.emplace_back([&, i] {
      seconds[i] = turn(way, kept, memory.states[i], layers, sequences, memory.tokens.data(),
                        memory.y.data() + i * HEADS * HEAD_DIM);
    });
  for (auto& thread : team) thread.join();
  return *std::max_element(seconds.begin(), seconds.end());
}

}  // namespace

int main(int argc, char** argv) {
  int threads = argc > 1 ? atoi(argv[1]) : 1, layers = argc > 2 ? atoi(argv[2]) : 4;
  for (int batch : {1, 8}) {  // of each thread
    Memory memory = {{}, std::vector<Token>(MAX_KEPT), std::vector<float>((size_t)threads * HEADS * HEAD_DIM)};
    int64_t bytes = 4 * STATE * layers * batch;
    for (int i = 0; i < threads; i++) {
      void* place = mmap(nullptr, bytes + 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (place == MAP_FAILED) return 1;
      madvise(place, bytes, MADV_HUGEPAGE);
      memory.states.push_back((float*)place);
      std::fill_n(memory.states[i], bytes / 4, 0.5f);
    }
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    for (Token& token : memory.tokens) {
      for (float* part : {token.x, token.b, token.c})
        for (int i = 0; i < (part == token.x ? HEADS * HEAD_DIM : GROUPS * SIZE); i++) part[i] = normal(random);
      for (int h = 0; h < HEADS; h++) token.decays[h] = 0.9f, token.steps[h] = 0.1f;
    }
    for (int kept : {2, 4, 8, 16}) {
      std::vector<double> ratios[WAYS];
      for (int i = 0; i < TURNS; i++) {
        double base = run(memory, BY_ROWS, kept, layers, batch);
        for (int way = BY_FOUR_ROWS; way < WAYS; way++)
          ratios[way].push_back(run(memory, (Way)way, kept, layers, batch) / base);
      }
      printf("{\"threads\": %d, \"sequences\": %d, \"kept\": %d", threads, batch * threads, kept);
      for (int way = BY_FOUR_ROWS; way < WAYS; way++) {
        std::sort(ratios[way].begin(), ratios[way].end());
        printf(", \"%s_over_rows\": [%.2f, %.2f]", NAMES[way], ratios[way][TURNS / 2], ratios[way][0]);
      }
      printf("}\n");
      fflush(stdout);
    }
    for (float* place : memory.states) munmap(place, bytes + 65536);
  }
}
