// What the engine keeps of the adapters it was opened with: which linears read what a row operation
// packs, and room for the inner products of each linear that some adapter changes.
#pragma once

#include <algorithm>
#include <vector>

#include "program.h"

namespace nemotrt {

class AdapterTable {
 public:
  AdapterTable(const ProgramSpec& spec) : count_(spec.num_adapters), inner_(spec.num_ops), starts_(1, 0) {
    if (!count_) return;
    loras_.assign(spec.loras, spec.loras + (int64_t)spec.num_ops * count_);
    std::vector<std::vector<int32_t>> readers(spec.num_ops);
    std::vector<int32_t> writers(spec.num_buffers, 0);  // what put into each operand last
    for (int i = 0; i < spec.num_ops; i++) {
      const Op& op = spec.ops[i];
      if (op.kind != LINEAR) {
        if (spec.buffers[op.target.buffer].format != ROWS) writers[op.target.buffer] = i;
        continue;
      }
      int rank = 0;
      for (int a = 0; a < count_; a++) rank = std::max(rank, loras_[(int64_t)i * count_ + a].rank);
      if (!rank) continue;
      readers[writers[op.sources[0].buffer]].push_back(i);
      int stride = (int)round_up(rank, PANEL);
      memory_.emplace_back((int64_t)spec.max_tokens * stride);
      inner_[i] = {memory_.back().data(), stride};
    }
    for (const auto& own : readers) {
      readers_.insert(readers_.end(), own.begin(), own.end());
      starts_.push_back((int32_t)readers_.size());
    }
  }
  AdapterTable(const AdapterTable&) = delete;

  Adapters view() const { return {loras_.data(), starts_.data(), readers_.data(), inner_.data(), count_}; }

 private:
  int32_t count_;
  std::vector<Lora> loras_;
  std::vector<Inner> inner_;
  std::vector<int32_t> starts_, readers_;
  std::vector<std::vector<float>> memory_;
};

}  // namespace nemotrt
