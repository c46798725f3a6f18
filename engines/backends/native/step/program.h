// What crosses the C boundary, and what the kernels see: plain structs, mirrored in structures.py.
#pragma once

#include <cstddef>
#include <cstdint>

namespace nemotrt {

constexpr int MAX_SOURCES = 4;
constexpr int MAX_TENSORS = 4;
constexpr int MAX_STATES = 2;
constexpr int MAX_SIZES = 4;
constexpr int MAX_REALS = 2;
constexpr int MAX_CONV_KERNEL = 16;
constexpr int PANEL = 16;          // rows of a weight that lie side by side
constexpr int DEPTH_BLOCK = 2048;  // inputs that share one scale, and that int32 can sum
constexpr int MAX_DRAFT = 64;      // tokens of a sequence that may turn out wrong
constexpr int CELL = 32;           // inputs of a panel whose int4 codes share scales, one for each row

// The lists whose numbers cross the boundary, each told once: number and name in program.json, and of
// an operation how many sources, tensors, states, sizes and reals it takes (validate.cpp says which).
#define NEMOTRT_KINDS(X)                      \
  X(EMBED, "embed", 0, 1, 0, 0, 0)            \
  X(NORM, "norm", 1, 1, 0, 0, 1)              \
  X(LINEAR, "linear", 1, 2, 0, 1, 0)          \
  X(RELU2, "relu2", 1, 0, 0, 0, 0)            \
  X(SWIGLU, "swiglu", 2, 0, 0, 0, 0)          \
  X(CONV, "conv", 1, 2, 1, 1, 0)              \
  X(SCAN, "scan", 4, 3, 1, 4, 2)              \
  X(GATED_NORM, "gated_norm", 2, 1, 0, 1, 1)  \
  X(ATTENTION, "attention", 3, 4, 2, 3, 1)    \
  X(PACK, "pack", 1, 0, 0, 0, 0)              \
  X(LAST_TOKEN, "last_token", 1, 0, 0, 0, 0)  \
  X(ROUTE, "route", 1, 1, 0, 4, 1)            \
  X(EXPERTS, "experts", 2, 2, 0, 4, 0)        \
  X(MIX, "mix", 2, 0, 0, 2, 0)
#define NEMOTRT_TENSOR_KINDS(X) /* and the bytes of CELL elements, with the scale of int4 */       \
  X(VALUES, "values", 128) X(TABLE_BF16, "table_bf16", 64) X(PANELS_FLOAT, "panels_float", 128)   \
  X(PANELS_BF16, "panels_bf16_pairs", 64) X(PANELS_INT8, "panels_int8", 32)                             \
  X(PANELS_FLOAT8, "panels_float8", 32) X(PANELS_INT4, "panels_int4", 18)
#define NEMOTRT_FORMATS(X)                                                                        \
  X(ROWS, "rows") X(OPERAND_FLOAT, "operand_float") X(OPERAND_INT16, "operand_int16")             \
  X(OPERAND_INT8, "operand_int8")
#define NEMOTRT_STATE_FORMATS(X) /* and an element's bytes */ \
  X(FLOAT32, "float32", 4) X(FLOAT16, "float16", 2) X(BFLOAT16, "bfloat16", 2) X(CODES8, "int8", 1)
#define NEMOTRT_ROW_SETS(X) X(TOKENS, "tokens") X(SEQUENCES, "sequences")
#define NEMOTRT_NUMBER(number, ...) number,
#define NEMOTRT_NAME(number, name, ...) name,

enum Kind : int32_t { NEMOTRT_KINDS(NEMOTRT_NUMBER) NUM_KINDS };
enum TensorKind : int32_t { NEMOTRT_TENSOR_KINDS(NEMOTRT_NUMBER) NUM_TENSOR_KINDS };
enum Format : int32_t { NEMOTRT_FORMATS(NEMOTRT_NUMBER) NUM_FORMATS };
enum StateFormat : int32_t { NEMOTRT_STATE_FORMATS(NEMOTRT_NUMBER) NUM_STATE_FORMATS };
enum RowSet : int32_t { NEMOTRT_ROW_SETS(NEMOTRT_NUMBER) NUM_ROW_SETS };
enum Isa : int32_t { ISA_AUTO, ISA_PORTABLE, ISA_AVX2, ISA_AVX512, ISA_AMX, ISA_NEON, ISA_I8MM };

struct View {
  int32_t buffer, column, width;
};

// One fused operation. An absent tensor is -1; places that are not given are 0.
struct Op {
  int32_t kind, rows;
  int32_t num_sources, num_tensors, num_states, num_sizes, num_reals;  // given
  View target;
  View sources[MAX_SOURCES];
  int32_t tensors[MAX_TENSORS];
  int32_t states[MAX_STATES];
  int32_t sizes[MAX_SIZES];
  float reals[MAX_REALS];
};

struct BufferSpec {
  int32_t format, rows, width;
};
struct TensorSpec {
  int32_t kind, rows, columns;
  int64_t offset;    // from the start of the weights
  const char* name;  // for messages
};
struct StateSpec {
  int64_t slot_elements;
  void* data;        // [max_slots, slot_elements]; not looked at by fault_of
  int32_t format;    // FLOAT16 for the state of a scan only, BFLOAT16 and CODES8 for caches only
  const char* name;  // for messages; gone once the program is open
};

// What an adapter adds to one linear: `down` [rank, inputs] and `up` [rank, outputs], its scale in it, rows
// padded to a panel with zeros. Rank 0 is none.
struct Lora {
  const float* down;
  const float* up;
  int32_t rank;
};

struct ProgramSpec {
  const Op* ops;
  const BufferSpec* buffers;
  const TensorSpec* tensors;
  const StateSpec* states;
  int32_t num_ops, num_buffers, num_tensors, num_states;
  const uint8_t* weights;
  int64_t weights_bytes;
  int32_t logits;  // the buffer that the caller gives with each step
  int32_t vocab_size, max_slots, max_seq_len, max_tokens, max_draft, num_threads, isa;
  const Lora* loras;  // [operations, adapters]
  int32_t num_adapters;
};

struct Sequence {
  int32_t slot, past, count;
  int32_t num_logits;  // rows wanted, of its last tokens
  int32_t is_draft;    // whether the state waits for nemotrt_accept, whatever the tokens
  int32_t adapter;     // which one its linears have, counted from 1; 0 for none
};
struct Batch {
  const Sequence* sequences;
  const int32_t* tokens;  // of all sequences, one after the other
  float* logits;          // [rows wanted of all sequences, logits stride]
  double* seconds;        // [operations], added to, or nullptr
  int32_t num_sequences, num_tokens;
};

constexpr int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }
#define NEMOTRT_BYTES(number, name, bytes) bytes,
constexpr int CELL_BYTES[] = {NEMOTRT_TENSOR_KINDS(NEMOTRT_BYTES)};
constexpr int64_t bytes_of(int kind, int64_t elements) { return elements * CELL_BYTES[kind] / CELL; }
// The inputs of a weight in panels, padded.
constexpr int64_t depth_of(int kind, int64_t columns) { return round_up(columns, kind == PANELS_INT4 ? CELL : PANEL); }
// An int8 operand has for each token and CELL inputs their codes, their offset's part of the sum, a scale.
constexpr int CELL_WORDS = CELL / 4 + 2;
constexpr int operand_of(int kind) {
  return kind == PANELS_INT8 ? OPERAND_INT16 : kind == PANELS_INT4 ? OPERAND_INT8 : OPERAND_FLOAT;
}
constexpr int blocks_of(int64_t inputs) { return (int)((inputs + DEPTH_BLOCK - 1) / DEPTH_BLOCK); }

// Attention: queries that a thread takes through the keys together, keys that it packs at once, keys
// that have a softmax of their own, tokens times KV heads for each thread below which the keys are
// split among threads.
constexpr int ATTENTION_QUERIES = 128;
constexpr int KEY_BLOCK = 128;
constexpr int SPAN = 1024;
constexpr int SPLIT_BELOW = 2;
constexpr int64_t part_elements(int depth) { return round_up(depth, PANEL) + PANEL; }
constexpr int64_t attention_elements(int depth) {  // of a thread's memory: `Queries`
  return ATTENTION_QUERIES * (round_up(depth, PANEL) + KEY_BLOCK + 2 * part_elements(depth)) +
         (3 * KEY_BLOCK + 1) * round_up(depth, PANEL);
}
// A cache's elements for a token and KV head: with codes comes their scale, a float32.
constexpr int64_t cache_row_elements(int depth, int format) {
  return depth + (format == CODES8 ? (int64_t)sizeof(float) : 0);
}

// On matrix units: tokens of a tile; a thread's memory for a block of some tokens' inputs and a panel's
// weights, or for all inputs of a tile's tokens.
constexpr int MATRIX_TOKENS = 16;
constexpr int64_t matrix_elements(int64_t tokens, int64_t depth) {
  int64_t block = (2 * round_up(tokens, MATRIX_TOKENS) + PANEL) * DEPTH_BLOCK / (int64_t)sizeof(float);
  int64_t whole = 3 * MATRIX_TOKENS * round_up(depth, 2 * PANEL) / 2;  // three bf16 an input
  return block > whole ? block : whole;
}

// Experts: rows that go through one of them together; a thread's memory for an operand, and for the
// step's pairs of tokens and experts, and the rows that enter one expert and come out of it.
constexpr int EXPERT_ROWS = 96;
constexpr int64_t operand_elements(int64_t depth, int64_t rows) {
  return round_up(rows * depth, PANEL) + round_up(rows * blocks_of(depth), PANEL);
}
constexpr int64_t expert_elements(int64_t experts, int64_t chosen, int64_t depth, int64_t rows, int64_t tokens) {
  int64_t width = round_up(depth, 2 * PANEL);
  return round_up(experts + 1 + tokens * chosen, PANEL) + width + operand_elements(width, EXPERT_ROWS) +
         EXPERT_ROWS * (rows / experts);
}

// A buffer in memory. Operands hold groups of tokens, interleaved for the kernels (operand.h).
struct Buffer {
  int32_t format, stride;
  float* rows;
  int16_t* codes;
  float* scales;   // [rows, blocks of DEPTH_BLOCK]
  int32_t* cells;  // of an int8 operand: [rows, depth / CELL, CELL_WORDS] in all
};
struct Tensor {
  int32_t kind, rows, columns;
  const void* data;
};

// What an operation notes of drafts: [slots, max_draft, width].
struct Notes {
  float* data;
  int64_t width;
};
// Of each linear that an adapter changes: a row's products with `down`, [rows, stride]; else nullptr.
struct Inner {
  float* rows;
  int32_t stride;
};
// All adapters; the linears that read what operation i packs are readers[starts[i]] to readers[starts[i + 1]].
struct Adapters {
  const Lora* loras;  // [operations, count]
  const int32_t *starts, *readers;
  const Inner* inner;
  int32_t count;
};
struct Machine;
struct Range;
using MatrixLinear = void (*)(const Machine&, const Op&, int rows, Range panels, float* scratch);

// All that the kernels read; they allocate nothing.
struct Machine {
  const Op* ops;
  const Buffer* buffers;
  const Tensor* tensors;
  const StateSpec* states;
  float* scratch;
  int64_t scratch_stride;
  float* parts;  // of attention whose keys are split among threads
  const Notes* notes;  // of each operation
  int32_t num_ops, max_seq_len, max_draft, num_threads;
  MatrixLinear matrix;  // for int8 weights and many tokens, and bf16; nullptr where there is no unit
  Adapters adapters;
};
struct Step {
  const Sequence* sequences;
  const int32_t* starts;    // first token of each sequence
  const int32_t* owners;    // sequence of each token
  const int32_t* logits_rows; // token of each logits row
  const int32_t* tokens;
  int32_t num_sequences, num_tokens, num_rows;
  int32_t longest;  // tokens of a sequence, held and new
  bool has_adapters;
};

// Jobs of one phase of an operation: threads claim chunks of them, and all wait for the last one.
struct Range {
  int32_t first, last;
};
struct alignas(64) Phase {
  int32_t claimed, done;  // chunks; atomic
};
constexpr int PHASES = 3;  // of an operation, at most

// Threads that wait for a phase sleep here; announce() wakes them.
class Bell;
void sleep_until(Bell& bell, const Phase& phase, int32_t chunks);
void announce(Bell& bell);

struct Shared {
  Phase* phases;  // [operations, PHASES], zero before a step
  Bell* bell;
  double* ends;   // [operations, PHASES], when each was done, by the thread that did its last chunk
};

// What nemotrt_probe measures, in bytes or operations a second.
enum Probe : int32_t { PROBE_READ, PROBE_UPDATE, PROBE_FLOAT, PROBE_INT16, NUM_PROBES };

// What each instruction set has of its own.
struct Draw;
struct Bench;
struct Kernels {
  void (*run)(const Machine&, const Step&, const Shared&, int thread);
  void (*accept)(const Machine&, const Step&, const Shared&, int thread);
  double (*probe)(int what, float* data, int64_t count);
  void (*sample)(Draw&, const float* logits, int64_t size, const Bench&);
  MatrixLinear matrix;
};
#define NEMOTRT_KERNELS                                              \
  void run(const Machine&, const Step&, const Shared&, int thread);  \
  void accept(const Machine&, const Step&, const Shared&, int thread); \
  double probe(int what, float* data, int64_t count);                \
  void sample(Draw&, const float* logits, int64_t size, const Bench&);
namespace portable { NEMOTRT_KERNELS }
#if defined(__x86_64__)
#define NEMOTRT_MATRIX       \
  bool has_matrix_linear();  \
  void matrix_linear(const Machine&, const Op&, int rows, Range panels, float* scratch);
namespace avx2 { NEMOTRT_KERNELS NEMOTRT_MATRIX }
namespace avx512 { NEMOTRT_KERNELS NEMOTRT_MATRIX }
#elif defined(__aarch64__)
namespace neon { NEMOTRT_KERNELS }
namespace i8mm { NEMOTRT_KERNELS }
#endif

// The kernels of an instruction set, ISA_AUTO for the best; none (run is nullptr) if this CPU lacks it.
Kernels choose(int isa);

// Returns nullptr, or what is wrong with the program; reads nothing of weights and states.
const char* fault_of(const ProgramSpec& program, char* text, size_t size);

}  // namespace nemotrt
