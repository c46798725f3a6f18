"""What the front leaves in tritonserver: nothing."""

import asyncio

import psutil
import pytest

from nemotrt.serve.front.upstream.triton_upstream import TritonUpstream
from nemotrt.serve.processes.run_folder import ServerState

pytestmark = [pytest.mark.triton, pytest.mark.slow]
NUM_REQUESTS = 2000


async def ask(server: ServerState, count: int) -> None:
    upstream = TritonUpstream(str(server.grpc_url), "llm")
    places = asyncio.Semaphore(16)

    async def one() -> None:
        async with places:
            inputs = {"text_input": "The", "max_tokens": 2, "stream": True}
            inputs |= {"return_num_input_tokens": True}
            assert [fields async for fields in upstream.generate(inputs)][-1]["final"]

    await asyncio.gather(*(one() for _ in range(count)))
    await upstream.close()


def test_answers_that_have_ended_cost_tritonserver_no_memory(server) -> None:
    """A call cancelled after its last response costs 2 KB; 2,000 would be 4 MB."""
    triton = psutil.Process(server.processes["triton"])
    asyncio.run(ask(server, 500))
    before = triton.memory_info().rss
    asyncio.run(ask(server, NUM_REQUESTS))
    assert triton.memory_info().rss - before < 2 << 20
