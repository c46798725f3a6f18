from nemotrt.serve.supervision.log_follower import MAX_LINE_BYTES, LogFollower


def test_whole_lines_come_once_with_their_process(tmp_path) -> None:
    engine, front = tmp_path / "engine.log", tmp_path / "front.log"
    follower = LogFollower([engine, front])
    assert list(follower.lines()) == []
    with engine.open("ab", buffering=0) as stream:
        stream.write(b"one\ntw")
        assert list(follower.lines()) == ["engine | one"]
        stream.write(b"o \xff\n")
        front.write_text("hello\n")
        assert list(follower.lines()) == ["engine | two \ufffd", "front  | hello"]
    assert list(follower.lines()) == []


def test_a_log_that_begins_anew_is_read_from_its_start(tmp_path) -> None:
    path = tmp_path / "engine.log"
    follower = LogFollower([path])
    path.write_text("old and long\n")
    assert list(follower.lines()) == ["engine | old and long"]
    path.write_text("new\n")
    assert list(follower.lines()) == ["engine | new"]
    path.unlink()
    assert list(follower.lines()) == []
    path.write_text("third\n")
    assert list(follower.lines()) == ["engine | third"]


def test_a_line_without_an_end_does_not_grow_forever(tmp_path) -> None:
    path = tmp_path / "engine.log"
    path.write_bytes(b"x" * MAX_LINE_BYTES)
    assert len(list(LogFollower([path]).lines())) == 1
