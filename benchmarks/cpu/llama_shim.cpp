// llama.cpp behind a few plain functions, so that Python need not mirror its structures.
#include <cstring>
#include <vector>

#include "llama.h"

struct Peer {
  llama_model* model;
  llama_context* context;
  int vocab;
};

static void ignore(ggml_log_level, const char*, void*) {}

extern "C" {

// Returns nullptr if the file can't be loaded.
Peer* peer_open(const char* path, int threads, int sequences, int tokens_a_sequence, int tokens_a_step) {
  llama_log_set(ignore, nullptr);
  llama_backend_init();
  llama_model_params how = llama_model_default_params();
  how.n_gpu_layers = 0;
  llama_model* model = llama_model_load_from_file(path, how);
  if (!model) return nullptr;
  llama_context_params limits = llama_context_default_params();
  limits.n_ctx = sequences * tokens_a_sequence;
  limits.n_batch = limits.n_ubatch = tokens_a_step;
  limits.n_seq_max = sequences;
  limits.n_threads = limits.n_threads_batch = threads;
  llama_context* context = llama_init_from_model(model, limits);
  if (!context) return nullptr;
  return new Peer{model, context, llama_vocab_n_tokens(llama_model_get_vocab(model))};
}

// What its kernels were compiled for, in its own words.
const char* peer_features() { return llama_print_system_info(); }

// Writes a GGUF file in another type; 0 if that worked.
int peer_quantize(const char* from, const char* to, int type) {
  llama_log_set(ignore, nullptr);
  llama_model_quantize_params how = llama_model_quantize_default_params();
  how.ftype = (llama_ftype)type;
  return (int)llama_model_quantize(from, to, &how);
}

int peer_vocab(Peer* peer) { return peer->vocab; }

// Each sequence gets `count` tokens at `past`; logits [sequences or all tokens, vocabulary] unless null.
int peer_step(Peer* peer, int sequences, int count, int past, const int* tokens, bool wants_all, float* logits) {
  llama_batch batch = llama_batch_init(sequences * count, 0, 1);
  batch.n_tokens = sequences * count;
  for (int s = 0; s < sequences; s++)
    for (int t = 0; t < count; t++) {
      int i = s * count + t;
      batch.token[i] = tokens[i];
      batch.pos[i] = past + t;
      batch.n_seq_id[i] = 1;
      batch.seq_id[i][0] = s;
      batch.logits[i] = wants_all || t + 1 == count;
    }
  int code = llama_decode(peer->context, batch);
  for (int i = 0, row = 0; !code && i < batch.n_tokens; i++) {
    if (!batch.logits[i]) continue;
    const float* found = llama_get_logits_ith(peer->context, i);
    if (logits) memcpy(logits + (size_t)row++ * peer->vocab, found, peer->vocab * sizeof(float));
  }
  llama_batch_free(batch);
  return code;
}

void peer_clear(Peer* peer) { llama_memory_clear(llama_get_memory(peer->context), true); }

void peer_close(Peer* peer) {
  llama_free(peer->context);
  llama_model_free(peer->model);
  delete peer;
}
}
