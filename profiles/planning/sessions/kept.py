"""Which tokens an engine keeps the state of, and what that takes."""

from dataclasses import dataclass

from nemotrt.profiles.planning.answers.deployment import Deployment
from nemotrt.profiles.planning.sessions.load import SessionLoad
from nemotrt.profiles.planning.time.engine_profile import Boundary

# States of a session that waits for its next turn: at the last role marker of its newest prompt,
# and at that of the prompt before, which the newest began with. Older ones are the first to go.
# Source: nemotrt.engines.runtime, where states are kept and how they are given up.
NUM_STATES = 2


@dataclass(frozen=True, slots=True)
class KeptMemory:
    """Bytes of kept states, over all GPUs. A token's keys and values are kept once.

    state_bytes: SSM states and convolution windows after one token, whole.
    kv_bytes_per_token: keys and values.
    shared_bytes: of the text that all sessions begin with.
    session_bytes: of one session more, at its longest.
    """

    state_bytes: int
    kv_bytes_per_token: int
    shared_bytes: int
    session_bytes: int

    def of(self, num_sessions: int) -> int:
        """Return the bytes of so many sessions."""
        return self.shared_bytes + num_sessions * self.session_bytes

    def sessions_in(self, num_bytes: int) -> int:
        """Return how many sessions so much memory keeps."""
        return max(num_bytes - self.shared_bytes, 0) // self.session_bytes


def kept_memory(deployment: Deployment, load: SessionLoad) -> KeptMemory:
    """Return what sessions take in host memory, in the engine's own number formats."""
    request, tp = deployment.request, deployment.tp
    state, kv = tp * request.own_state_bytes, tp * request.kv_cache_bytes_per_token
    own_tokens = load.longest_tokens - load.system_tokens
    shared = state + load.system_tokens * kv if load.system_tokens else 0
    return KeptMemory(state, kv, shared, NUM_STATES * state + own_tokens * kv)


def snapshot_interval(system_tokens: int, tokens_per_block: int) -> int:
    """Return after how many tokens each TensorRT-LLM should keep a state: the shared text's end."""
    return max(system_tokens // tokens_per_block, 1) * tokens_per_block


def cached_tokens(deployment: Deployment, load: SessionLoad, turn: int) -> int | None:
    """Return how many tokens of a turn's prompt are not computed; None where it is not known."""
    common = load.common_tokens(turn)
    block = deployment.request.tokens_per_block
    match deployment.engine.reuse.boundary:
        case Boundary.ANY_TOKEN:
            return common
        case Boundary.BLOCKS:
            return common // block * block
        case Boundary.SNAPSHOTS:  # one at each prompt's end, beside those of the interval
            interval = snapshot_interval(load.system_tokens, block)
            return common if turn > 1 else common // interval * interval
        case Boundary.UNKNOWN:
            return None
