"""A gRPC server that speaks ModelStreamInfer, from NVIDIA's own protobuf; prints its port."""

import asyncio
import os

import grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as rpc


def scalar(request, name):
    for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True):
        if tensor.name == name:
            if tensor.datatype == "BYTES":
                return raw[4:].decode()
            return int.from_bytes(raw, "little")
    return None


def response(count, is_final, number, cached=None):
    text = b" a" * count
    infer = pb.ModelInferResponse(model_name="llm", model_version="1")
    if count:
        infer.outputs.add(name="text_output", datatype="BYTES", shape=[1])
        infer.raw_output_contents.append(len(text).to_bytes(4, "little") + text)
        infer.outputs.add(name="num_output_tokens", datatype="INT32", shape=[1])
        infer.raw_output_contents.append(number.to_bytes(4, "little"))
    if cached is not None:
        infer.outputs.add(name="num_cached_tokens", datatype="INT32", shape=[1])
        infer.raw_output_contents.append(cached.to_bytes(4, "little"))
    infer.parameters["triton_final_response"].bool_param = is_final
    return pb.ModelStreamInferResponse(infer_response=infer)


class Service(rpc.GRPCInferenceServiceServicer):
    async def ModelReady(self, request, context):  # noqa: N802
        return pb.ModelReadyResponse(ready=request.name == "llm")

    async def ModelMetadata(self, request, context):  # noqa: N802
        answer = pb.ModelMetadataResponse(name="llm")
        for name, datatype in (
            ("text_input", "BYTES"),
            ("max_tokens", "INT64"),
            ("stream", "BOOL"),
        ):
            answer.inputs.add(name=name, datatype=datatype, shape=[-1, 1])
        return answer

    async def ModelStreamInfer(self, requests, context):  # noqa: N802
        async for request in requests:
            osl, fault = scalar(request, "max_tokens"), scalar(request, "fault")
            for number in range(1, osl + 1):
                await asyncio.sleep(0.005)
                if number == 3 and fault == "error":
                    yield pb.ModelStreamInferResponse(error_message="boom")
                    return
                if number == 3 and fault == "stall":
                    await asyncio.sleep(60)
                if number == 3 and fault == "end":
                    return
                if number == 3 and fault == "die":
                    os._exit(7)
                if number == 3 and fault == "short":
                    break
                cached = scalar(request, "cached") if number == 1 else None
                yield response(1, is_final=False, number=number, cached=cached)
            yield response(0, is_final=True, number=0)


async def main():
    server = grpc.aio.server()
    rpc.add_GRPCInferenceServiceServicer_to_server(Service(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main())
