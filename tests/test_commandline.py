"""The command kit: options from fields, old spellings, --config, the default command."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from nemotrt.cli import main
from nemotrt.commandline.default_group import DefaultGroup
from nemotrt.commandline.kinds import ABOVE_0, COUNT
from nemotrt.commandline.options import option, options_of, words_of
from nemotrt.commandline.shared import config_option


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, slots=True)
class Inner:
    depth: float = option(0.5, "How deep.")


@dataclass(frozen=True, slots=True)
class SomeOptions:
    name: str
    num_cars: int = option(2, "Cars.", "--cars", old=("--wagons",), kind=COUNT)
    colour: Colour = option(Colour.RED, "Paint.")
    other: Colour | None = option(None, "Trim.", unset="none")
    num_bytes: int = option(0, "Room.", "--room-kib", kind=click.FloatRange(0), scale=1024)
    is_loud: bool = option(False, "Whistle.", "--loud")
    fold: bool = option(True, "Leave it.", "--no-fold")
    tags: tuple[str, ...] = option((), "Labels.", "--tag")
    inner: Inner = Inner()


@dataclass(frozen=True, slots=True)
class Numbers:
    rate: float | None = option(None, "Above 0.", kind=ABOVE_0)
    name: str = option("llm", "Its name.", "--called", "-c")
    is_loud: bool = option(False, "Whistle.")
    fold: bool = option(True, "Leave it.", "--no-fold")
    path: Path | None = option(None, "Where.")
    inner: Inner = Inner()


@click.command()
@options_of(Numbers)
def numbers(numbers: Numbers) -> None:
    click.echo(numbers)


@click.group(cls=DefaultGroup)
def group() -> None:
    """Two commands."""


@group.command("run")
@click.argument("name")
@options_of(SomeOptions)
@config_option
def run_command(some_options: SomeOptions) -> None:
    """Print the options."""
    click.echo(some_options)


@group.command("other")
def other() -> None:
    """Say so."""
    click.echo("other")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(group, [str(argument) for argument in arguments])


def test_what_is_not_given_is_the_fields_default() -> None:
    assert run("x").stdout == f"{SomeOptions('x')}\n"
    assert run("--loud", "x").stdout == f"{SomeOptions('x', is_loud=True)}\n"
    assert run("other").stdout == "other\n"


def test_every_kind_of_field() -> None:
    words = "x --cars 3 --colour blue --other red --room-kib 1.5 --loud --no-fold --tag a --tag b"
    wanted = SomeOptions("x", 3, Colour.BLUE, Colour.RED, 1536, True, False, ("a", "b"))
    assert run(*words.split()).stdout == f"{wanted}\n"
    assert run("x", "--cars", 0).exit_code == run("x", "--colour", "green").exit_code == 2


def test_an_old_spelling_works_unseen_and_says_the_new_one(tmp_path: Path) -> None:
    result = run("x", "--wagons=3")
    assert "num_cars=3" in result.stdout and "--wagons is called --cars now" in result.stderr
    assert "wagons" not in run("run", "--help").output
    assert run("x", "--wagons", 3, "--cars", 3).exit_code == 2
    path = tmp_path / "c.yaml"
    path.write_text("wagons: 4")
    result = run("x", "--config", path)
    assert "num_cars=4" in result.stdout and "is called --cars now" in result.stderr


def test_the_command_line_overrides_the_file(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("name: y\ncars: 5\nroom_kib: 2\nno-fold: true\ntag: [a, b]\n")
    wanted = SomeOptions("y", 6, num_bytes=2048, fold=False, tags=("a", "b"))
    assert run("--config", path, "--cars", 6).stdout == f"{wanted}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("carz: 1", "'carz'; did you mean 'cars'?"),
        ("cars: 0", "cars: 0 is not in the range"),
        ("cars: 1\nwagons: 1", "give it once"),
        ("room-kib: 1\nroom_kib: 2", "given twice"),
        ("colour: green", "colour: 'green' is not one of"),
        ("loud: 1", "loud: must be true or false"),
        ("tag: [[a]]", "must be one text or number"),
        ("name: null", "must be one text or number"),
        ("config: c.yaml", "unknown key of"),
    ],
)
def test_a_fault_in_the_file_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    result = run("x", "--config", path)
    assert result.exit_code == 2 and message in " ".join(result.stderr.split()), result.stderr


@pytest.mark.parametrize("number", ["nan", "inf", "-inf", "NaN", "1e999", "0", "-1"])
def test_no_number_that_is_none(number: str) -> None:
    assert CliRunner().invoke(numbers, [f"--rate={number}"]).exit_code == 2


@given(
    st.builds(
        Numbers,
        rate=st.none() | st.floats(0, 1e300, exclude_min=True),
        name=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1),
        is_loud=st.booleans(),
        fold=st.booleans(),
        path=st.sampled_from([None, Path("-o"), Path("/a b"), Path("--fold")]),
        inner=st.builds(Inner, st.floats(allow_nan=False)),
    )
)
@settings(deadline=None, max_examples=60)
def test_the_words_of_options_say_them(options: Numbers) -> None:
    result = CliRunner().invoke(numbers, words_of(options))
    assert result.stdout == f"{options}\n", result.output
    assert not words_of(Numbers())


def test_a_name_without_a_character_is_a_variable_that_is_not_set() -> None:
    """`--gpu "$GPU"` in a shell that has no GPU."""
    for words in (["plan", "nemotron-nano-9b-v2", "--gpu", ""], ["build", "", "-o", "e"]):
        done = CliRunner().invoke(main, words)
        assert done.exit_code == 2 and "is the variable of the shell set?" in done.stderr
