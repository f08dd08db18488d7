"""Samples: which arrays go to which inputs, in which batches; every misfit is a sentence."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from bninspect.errors import UsageProblem
from bninspect.recalibrate.engines import InputSpec
from bninspect.recalibrate.samples import (
    Feed,
    Samples,
    choose_samples,
    parse_feeds,
    read_columns,
)

IMAGE = InputSpec("image", (None, 4, 3), "float32")
MODE = InputSpec("training", (), "bool")
RATE = InputSpec("rate", (), "float32")


def header(shape: tuple[int, ...], descr: str = "<f4") -> bytes:
    """Return the header of a .npy file that declares a shape."""
    stream = io.BytesIO()
    described = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, described)
    return stream.getvalue()


# Members of archives: shapes of more bytes than there are, and what is no array.
HOSTILE = {
    "huge": {"x.npy": header((10**12, 10)) + bytes(100)},
    "large": {"x.npy": header((10**8, 10)) + bytes(100)},
    "short": {"x.npy": header((4, 10)) + bytes(100)},
    "text": {"x.npy": header((2, 2)) + bytes(16), "readme.txt": b"hello, this is text"},
    "objects": {"x.npy": header((2,), "|O") + bytes(16)},
    "cut header": {"x.npy": b"\x93NUMPY\x01\x00\x10\x00{'descr': (((((((("},
}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path / "samples.npz"
    np.savez(path, x=rng.integers(0, 255, (100, 4, 3), np.uint8), y=np.arange(100))
    return path


def npy(shape: str) -> bytes:
    """Return a `.npy` file whose header states a shape, with 16 bytes of values."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + bytes(16)


def zipped(name: str, content: bytes, *, method: int = 0, flags: int = 0) -> bytes:
    """Return a zip archive of one member that claims a way of compression, and flags."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(name, content)
    written = bytearray(stream.getvalue())
    entry = written.index(b"PK\x01\x02")
    written[6] = written[entry + 8] = flags
    written[entry + 10] = method
    return bytes(written)


def choose(path: Path, *specs: InputSpec, **options: object) -> Samples:
    needed = [spec.name for spec in specs]
    return choose_samples(read_columns(str(path), needed), specs, **options)  # type: ignore[arg-type]


def test_a_single_array_goes_to_a_single_input(archive: Path) -> None:
    samples = choose(archive, IMAGE, labels="y", batch=30)
    stored = np.load(archive)
    seen = []
    for batch, labels in samples:
        assert labels is not None
        assert batch["image"].dtype == np.float32
        assert np.array_equal(batch["image"], stored["x"][labels])
        seen += labels.tolist()
    assert sorted(seen) == list(range(100))
    assert seen != sorted(seen)
    assert seen == [label for _, labels in samples for label in labels]  # the same each time


@pytest.mark.parametrize(("batch", "sizes"), [(30, [34, 33, 33]), (64, [50, 50]), (200, [100])])
def test_batches_are_nearly_equal(archive: Path, batch: int, sizes: list[int]) -> None:
    samples = choose(archive, IMAGE, labels="y", batch=batch)
    assert [len(one["image"]) for one, _ in samples] == sizes
    assert samples.batches == len(samples) == len(sizes)
    assert len(samples.first(1)) == 1


def test_a_model_built_for_a_batch_size_gets_it(archive: Path) -> None:
    fixed = InputSpec("image", (32, 4, 3), "float32")
    samples = choose(archive, fixed, labels="y")
    assert [len(one["image"]) for one, _ in samples] == [32, 32, 32]
    assert samples.notes == ("the model is built for batches of 32: 4 samples left out",)


def test_fewer_samples_are_taken_by_chance(archive: Path) -> None:
    samples = choose(archive, IMAGE, labels="y", most=10)
    [(_, labels)] = samples
    assert labels is not None
    assert len(set(labels.tolist())) == 10
    assert samples.notes == ("10 samples of 100 were taken, by chance",)


def test_the_first_batches_are_the_first(archive: Path) -> None:
    samples = choose(archive, IMAGE, labels="y", batch=30)
    first = [labels.tolist() for _, labels in samples.first(40) if labels is not None]
    assert first == [labels.tolist() for _, labels in samples if labels is not None][:2]


def test_feeds_name_arrays_and_values(archive: Path) -> None:
    feeds = parse_feeds(["image=x", "training=false", "rate=1"])
    samples = choose(archive, IMAGE, MODE, RATE, feeds=feeds)
    batch, _ = next(iter(samples))
    assert batch["training"].dtype == bool
    assert not batch["training"]
    assert batch["rate"].dtype == np.float32
    assert batch["rate"] == 1.0
    assert batch["image"].shape == (50, 4, 3)


def test_parts_in_a_directory_follow_each_other(tmp_path: Path) -> None:
    values = np.arange(60.0).reshape(20, 3)
    for number, part in enumerate(np.split(values, [7, 12])):
        np.save(tmp_path / f"part{number}.npy", part)
    [column] = read_columns(str(tmp_path), ["image"]).values()
    rows = np.array([19, 0, 8, 7, 11, 12])
    assert np.array_equal(column.take(rows), values[rows])
    assert len(column) == 20


def test_archives_in_a_directory_are_parts_by_key(tmp_path: Path) -> None:
    for number in range(2):
        np.savez(tmp_path / f"{number}.npz", x=np.full((3, 2), number), y=np.full(3, number))
    columns = read_columns(str(tmp_path), [])
    assert columns["x"].shape == (6, 2)
    assert columns["y"].take(np.arange(6)).tolist() == [0, 0, 0, 1, 1, 1]


def test_arrays_in_a_directory_have_the_names_of_inputs(tmp_path: Path) -> None:
    np.save(tmp_path / "image.npy", np.zeros((5, 4, 3)))
    np.save(tmp_path / "y.npy", np.zeros(5))
    assert set(read_columns(str(tmp_path), ["image"])) == {"image", "y"}


@pytest.mark.parametrize(
    ("specs", "options", "words"),
    [
        ([IMAGE], {}, r"Nothing is given for the input image: use --feed image=KEY"),
        ([IMAGE, MODE], {"labels": "y"}, r"inputs image, training"),
        ([IMAGE], {"labels": "z"}, r"--labels z: the data has no such key"),
        ([IMAGE], {"feeds": [Feed("imag", "x")]}, r"no such input. Did you mean image\?"),
        ([IMAGE], {"feeds": [Feed("image", "X1")]}, r"--feed image=X1: the data has no such key"),
        ([IMAGE], {"feeds": [Feed("image", "y")]}, r"y has the shape \[100\]"),
        ([InputSpec("i", (None, 4, 3), "int32")], {"labels": "f"}, "differ in the number"),
        ([InputSpec("image", (128, 4, 3), "uint8")], {"labels": "y"}, "exactly 128 samples"),
    ],
)
def test_misfits_are_sentences(
    archive: Path, specs: list[InputSpec], options: dict[str, object], words: str
) -> None:
    np.savez(archive, **np.load(archive), f=np.zeros((7, 2)))
    columns = read_columns(str(archive), [])
    if "f" not in options.values():
        del columns["f"]
    else:
        del columns["y"]
    with pytest.raises(UsageProblem, match=words):
        choose_samples(columns, specs, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", ["99999999999999999999999", "0.5", "1e999", "-3000000000"])
def test_a_value_that_the_input_lacks_is_a_sentence(archive: Path, value: str) -> None:
    steps = InputSpec("steps", (), "int32")
    columns = {"image": read_columns(str(archive), [])["x"]}
    with pytest.raises(UsageProblem, match=f"--feed steps={value}: the input takes int32"):
        choose_samples(columns, [IMAGE, steps], feeds=[Feed("steps", value)])


def test_integers_do_not_overflow(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([[255, 0]] * 10))
    columns = read_columns(str(tmp_path / "x.npy"), [])
    pixels = InputSpec("x", (None, 2), "uint8")
    assert choose_samples(columns, [pixels]).dtypes["x"] == np.uint8
    np.save(tmp_path / "x.npy", np.array([[256, 0]] * 10))
    columns = read_columns(str(tmp_path / "x.npy"), [])
    with pytest.raises(UsageProblem, match="values from 0 to 256, but the input x takes uint8"):
        choose_samples(columns, [pixels])


def test_numbers_with_a_fraction_are_no_integers(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.full((10, 2), 0.5))
    columns = read_columns(str(tmp_path / "x.npy"), [])
    with pytest.raises(UsageProblem, match="takes int32"):
        choose_samples(columns, [InputSpec("tokens", (None, 2), "int32")])


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.npy", b"not an array", "numbers that numpy.save"),
        ("a.npz", b"PK\x03\x04 cut", "numbers that numpy.save"),
        ("a.npy", b"", "numbers that numpy.save"),
        ("a.npy", npy("(-4, 3)"), "numbers that numpy.save"),
        ("a.npy", npy("(9223372036854775807,)"), "numbers that numpy.save"),
        ("a.npy", b"\x93NUMPY\x01\x00\x76\x00" + b"(" * 0x75 + b"\n", "numbers that numpy.save"),
        ("a.npz", zipped("x.txt", b"text"), "numbers that numpy.save"),
        ("a.npz", zipped("x.npy", b"no array"), "numbers that numpy.save"),
        ("a.npz", zipped("x.npy", npy("(4,)"), method=99), "numbers that numpy.save"),
        ("a.npz", zipped("x.npy", npy("(4,)"), flags=1), "numbers that numpy.save"),
        ("a.npz", zipped("x.npy", npy(f"({1 << 60},)")), "numbers that numpy.save"),
    ],
)
def test_files_of_something_else_are_sentences(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageProblem, match=words):
        read_columns(str(tmp_path / name), [])


@pytest.mark.parametrize("members", HOSTILE.values(), ids=HOSTILE)
def test_an_archive_is_not_believed(tmp_path: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(UsageProblem, match="numbers that"):
        read_columns(str(tmp_path / "a.npz"), [])


def test_damaged_data_are_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=np.arange(10000.0))
    content = bytearray(path.read_bytes())
    content[60:200] = b"\xff" * 140
    path.write_bytes(content)
    with pytest.raises(UsageProblem, match="damaged"):
        read_columns(str(path), [])


def test_objects_are_not_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(UsageProblem, match="Objects are not unpickled"):
        read_columns(str(tmp_path / "a.npy"), [])


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "no .npz or .npy file"),
        ({"a.npy": np.zeros((3, 2)), "b.npz": np.zeros((3, 2))}, "both .npz and .npy"),
        ({"a.npy": np.zeros((3, 2)), "b.npy": np.zeros((3, 4))}, "different shapes"),
        ({"a.npy": np.float32(3.0)}, "a single number"),
        ({"a.npy": np.zeros(3), "b.npy": np.zeros(3, "M8[s]")}, "types that do not fit"),
        ({"a.npz": np.zeros(3), "b.npz": None}, "other keys than a.npz: none and arr_0"),
    ],
)
def test_directories_that_do_not_fit_are_sentences(
    tmp_path: Path, files: dict[str, np.ndarray | None], words: str
) -> None:
    for name, array in files.items():
        values = [] if array is None else [array]
        (np.save if name.endswith("npy") else np.savez)(tmp_path / name, *values)
    with pytest.raises(UsageProblem, match=words):
        read_columns(str(tmp_path), [])


def test_an_archive_that_is_called_an_array_is_a_sentence(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros(3))
    (tmp_path / "a.npz").rename(tmp_path / "a.npy")
    with pytest.raises(UsageProblem, match=r"an archive of arrays by key: call it \.npz"):
        read_columns(str(tmp_path), [])


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.npy")
    for path in (tmp_path, tmp_path / "pipe.npy"):
        with pytest.raises(UsageProblem, match="expected a file of numpy"):
            read_columns(str(path), [])


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"image": np.zeros((0, 4, 3))}, "no samples: image has the length 0"),
        ({"image": np.zeros((9, 4, 3)), "y": np.zeros(0)}, "image 9, y 0"),
    ],
)
def test_no_samples_and_no_labels_are_sentences(
    tmp_path: Path, arrays: dict[str, np.ndarray], words: str
) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    columns = read_columns(str(tmp_path / "a.npz"), [])
    with pytest.raises(UsageProblem, match=words):
        choose_samples(columns, [IMAGE], labels="y" if "y" in arrays else None)


@pytest.mark.parametrize("second", ["x=b", "x:0=b"])
def test_an_input_is_fed_once(second: str) -> None:
    with pytest.raises(UsageProblem, match="the input is given twice"):
        parse_feeds(["x=a", second])


def test_a_missing_file_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match="not found"):
        read_columns(str(tmp_path / "none.npz"), [])


@pytest.mark.parametrize("value", ["x", "=x", "x="])
def test_feeds_without_name_or_value_are_refused(value: str) -> None:
    with pytest.raises(UsageProblem, match="expected NAME=KEY"):
        parse_feeds([value])
