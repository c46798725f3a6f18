// Chooses each sequence's next token from its logits, with the arithmetic of the CPU's sampler:
// edit_logits, weigh_scores, choose_tokens. feed_tokens gives the tokens to the next step.
#include "choose.h"
#include "feed.h"
