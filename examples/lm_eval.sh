#!/usr/bin/env bash
# lm-eval of a served model: pip install 'lm-eval[api]' transformers; nemotrt serve ENGINE
# usage: lm_eval.sh http://127.0.0.1:9000/v1 CHECKPOINT TASK[,TASK...] [options of lm-eval]
# CHECKPOINT has the tokenizer; $MAX_LENGTH is what lm-eval puts into one window at most.
set -euo pipefail
address=$1 checkpoint=$2 tasks=$3
shift 3
exec lm_eval --model local-completions --tasks "$tasks" --batch_size 4 \
    --model_args "model=llm,base_url=$address/completions,tokenizer=$checkpoint,max_length=${MAX_LENGTH:-4096}" \
    "$@"
