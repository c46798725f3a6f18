"""An engine's own steps, before and after a state was kept."""

import numpy as np

from nemotrt.engines.runtime.engine import Feed, KeepsState

PROMPT = [5, 9, 11, 40, 2, 7, 7, 30, 1]
MORE = [3, 50, 8, 21, 60]


def check_goes_on(engine: KeepsState) -> None:
    """Each state after a prompt and each token behind it gives the same logits in another slot.

    It comes back in two parts, as a conversation's would; between, its own slot goes on.
    """
    own = engine.allocate()
    engine.step([Feed(own, PROMPT)])
    saved = [engine.save(own)]
    logits = []
    for token in MORE:
        logits.append(engine.step([Feed(own, [token])])[0].copy())
        saved.append(engine.save(own, len(PROMPT)))
    engine.release(own)
    for after, state in enumerate(saved[:-1]):
        first, slot = engine.allocate(), engine.allocate()
        engine.step([Feed(first, [1] * (after + 1))])  # so it lies in another row
        parts = state.caches if not after else (*saved[0].caches, *state.caches)
        engine.restore(slot, state.fixed, parts)
        assert engine.held_tokens(slot) == len(PROMPT) + after
        for token, wanted in zip(MORE[after:], logits[after:], strict=True):
            found = engine.step([Feed(slot, [token])])[0]
            np.testing.assert_allclose(found, wanted, atol=1e-4, rtol=0)
        engine.release(first)
        engine.release(slot)
