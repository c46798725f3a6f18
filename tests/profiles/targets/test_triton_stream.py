"""A profile leaves a Triton server in peace: what it no longer wants is stopped, not cancelled."""

import asyncio

import pytest

from nemotrt.engines.text.tokenizer import Tokenizer
from nemotrt.profiles.load.exchange import Exchange, Phase
from nemotrt.profiles.load.prompts import PromptMaker
from nemotrt.profiles.load.targets.triton_grpc import TritonGrpcTarget
from nemotrt.profiles.load.workload import Language
from support.endless_triton import EndlessModel, serving

INPUTS = (("text_input", "BYTES"), ("max_tokens", "INT32"))
STOP = ("stop", "BOOL")


async def leave(address: str, maker: PromptMaker) -> None:
    """Cancel one answer amid its tokens, and disconnect."""
    target = TritonGrpcTarget(address, maker)
    await target.open()
    exchange = Exchange(0, Phase.MEASURED, 16, 10_000)
    sending = asyncio.create_task(target.send(target.prompt(0, 16), exchange))
    await asyncio.sleep(0.2)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    async with asyncio.timeout(4):  # less than it waits before it cancels after all
        await target.close()


@pytest.fixture
def maker(tokenizer: Tokenizer) -> PromptMaker:
    return PromptMaker(tokenizer, Language.ENGLISH, 0)


@pytest.mark.parametrize("num_ignored_stops", [0, 1], ids=["", "the-stop-overtakes"])
def test_a_model_that_knows_stop_is_asked(maker: PromptMaker, num_ignored_stops: int) -> None:
    model = EndlessModel((*INPUTS, STOP))
    model.num_ignored_stops = num_ignored_stops
    with serving(model) as address:
        asyncio.run(leave(address, maker))
        assert model.stops == model.whole * (1 + num_ignored_stops)
    assert len(model.whole) == 1


def test_any_other_is_cancelled_at_once(maker: PromptMaker) -> None:
    model = EndlessModel(INPUTS)
    with serving(model) as address:
        asyncio.run(leave(address, maker))
    assert (model.stops, model.whole) == ([], [])
