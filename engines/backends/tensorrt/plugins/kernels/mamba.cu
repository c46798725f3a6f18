// The two operations of a Mamba-2 layer that TensorRT's own layers serve poorly.
#include "causal_conv.h"
#include "ssd_decode.h"
#include "ssd_prefill.h"
