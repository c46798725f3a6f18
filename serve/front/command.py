"""`nemotrt serve front`: parse, check, run."""

from pathlib import Path
from typing import Any

import click

from nemotrt.commandline import PATH, config_option
from nemotrt.serve.requests.limits import BODY_DEFAULT


@click.command()
@click.argument("engine", type=PATH)
@click.option(
    "--triton",
    "triton_address",
    default="127.0.0.1:8001",
    show_default=True,
    help="gRPC address of the Triton that serves ENGINE's repository.",
)
@click.option("--name", "model_name", default="llm", show_default=True, help="The model's name.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(1, 65535), default=9000, show_default=True)
@click.option("--reasoning-in-content", is_flag=True, help="Leave <think> traces in the content.")
@click.option("--api-key-file", type=PATH, help="API keys, one a line; or $NEMOTRT_API_KEYS.")
@click.option("--tls-certificate", type=PATH)
@click.option("--tls-key", type=PATH)
@click.option("--max-body-bytes", type=click.IntRange(1), help=f"Of a request.  {BODY_DEFAULT}")
@config_option
def front(engine: Path, **options: Any) -> None:
    """Answer OpenAI's API before a Triton that runs already.

    ENGINE is read for its tokenizer and chat template alone. Triton must serve what `nemotrt serve
    repo ENGINE --target container` wrote. `nemotrt serve ENGINE` starts a front by itself.
    """
    from nemotrt.serve.processes.packages import check_packages

    check_packages(use_triton=True)
    from nemotrt.serve.front.http.tls import check_tls
    from nemotrt.serve.front.process import serve_front
    from nemotrt.serve.supervision.ports import choose_ports

    check_tls(options["tls_certificate"], options["tls_key"])
    choose_ports(options["host"], [options["port"]])
    serve_front(engine, engine_socket=None, **options)
