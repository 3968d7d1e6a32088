"""The Hugging Face layout: names that the loader looks for, a card that tells nothing about its maker."""

from __future__ import annotations

import errno
import getpass
import os
import platform
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from batcher.errors import StorageError
from batcher.export import UnfinishedError, export_dataset
from batcher.results import Results
from tests.fakes import make_job, outcome
from tests.runs import answer, finished, rows_of, run_rows, write_records


def names(folder: Path) -> list[str]:
    """All files of a dataset folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def front_matter(folder: Path) -> object:
    """The metadata of a card."""
    _, header, _ = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(header)


def test_the_layout(tmp_path: Path) -> None:
    """The parts in order, as links that cost no space, and a card whose metadata names the split."""
    with finished(tmp_path, [{"text": f"t{n}"} for n in range(12)]) as results:
        assert export_dataset(results, tmp_path / "ds") == (12, 3)
        files = [f"data/train-{n:05d}-of-00003.parquet" for n in range(3)]
        assert names(tmp_path / "ds") == ["README.md", *files]
        for name, part in zip(files, results.parts(), strict=True):
            assert (tmp_path / "ds" / name).samefile(part.path)
    data_files = [{"split": "train", "path": "data/train-*.parquet"}]
    assert front_matter(tmp_path / "ds") == {"configs": [{"config_name": "default", "data_files": data_files}]}
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_many_parts(tmp_path: Path) -> None:
    """Their order is that of their numbers, beyond nine too."""
    output = {"path": "out", "rows_per_part": 1}
    with finished(tmp_path, [{"text": f"t{n}"} for n in range(12)], output=output) as results:
        export_dataset(results, tmp_path / "ds")
    for number, path in enumerate(sorted((tmp_path / "ds/data").iterdir())):
        assert pq.read_table(path)["row_index"].to_pylist() == [number]


def test_a_file_system_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parts are copied."""

    def link(*_: object) -> None:
        raise OSError(errno.EXDEV, "cross-device link")

    with finished(tmp_path, [{"text": "t"}] * 7) as results:
        monkeypatch.setattr(os, "link", link)
        export_dataset(results, tmp_path / "ds")
        for path, part in zip(sorted((tmp_path / "ds/data").iterdir()), results.parts(), strict=True):
            assert path.read_bytes() == part.path.read_bytes()
            assert not path.samefile(part.path)


def test_the_card(tmp_path: Path) -> None:
    """Model, parameters, totals, version, and every column with its type."""
    parameters = {"temperature": 0.2, "stop": ["|", "`"], "user": "alice-k", "extra": {"account": "4711"}}
    records = [{"text": "t", "odd | <b>name</b>`": 1}] * 12
    with finished(tmp_path, records, parameters=parameters) as results:
        export_dataset(results, tmp_path / "ds")
        card = (tmp_path / "ds/README.md").read_text()
        assert "# Completions of some-model" in card
        assert "| rows | 12 (12 completed, 0 failed) |" in card
        assert "| prompt tokens | 36 |\n| completion tokens | 60 |" in card
        assert f"| made with | batcher {results.version} |" in card
        assert "| `temperature` | <code>0.2</code> |" in card
        assert '| `stop` | <code>["&#124;", "&#96;"]</code> |' in card
        assert "Also set: `extra.account`, `user`." in card
        assert "alice" not in card
        assert "4711" not in card
        assert "| <code>odd &#124; &lt;b&gt;name&lt;/b&gt;&#96;</code> | <code>int64</code> | input |" in card
        for name in results.schema.names[2:]:
            assert f"\n| <code>{name}</code> | <code>" in card


@pytest.mark.parametrize("model", ["/home/alice/models/llama-3", "../alice/llama-3", "C:\\alice\\llama-3/"])
def test_the_card_tells_nothing_about_its_maker(tmp_path: Path, model: str) -> None:
    """No path, host, address, user or prompt, also where the model is named by its place on a disk."""
    endpoint = {"base_url": "http://gpu-7.internal.example:8000/v1", "allow_http": True}
    job = {"model": model, "endpoint": endpoint, "system_prompt": "the secret recipe"}
    with finished(tmp_path, [{"text": "t"}], **job) as results:
        export_dataset(results, tmp_path / "ds")
    card = (tmp_path / "ds/README.md").read_text()
    assert "# Completions of llama-3\n" in card
    for word in ("alice", "gpu-7", "8000", "recipe", str(tmp_path), platform.node(), f"/{getpass.getuser()}"):
        assert word not in card


def test_a_prefix(tmp_path: Path) -> None:
    """The columns are described under the names that they have here."""
    output = {"path": "out", "prefix": "b_"}
    with finished(tmp_path, [{"text": "t", "status": "s"}], output=output) as results:
        export_dataset(results, tmp_path / "ds")
    card = (tmp_path / "ds/README.md").read_text()
    assert "| <code>status</code> | <code>string</code> | input |" in card
    assert "| <code>b_status</code> | <code>string</code> | `completed` or `failed` |" in card


def test_an_unfinished_run(tmp_path: Path) -> None:
    """It is refused; with --partial, rows without a part are in files of their own, in their place in the order."""
    write_records(tmp_path, [{"text": f"t{n}"} for n in range(22)])
    job = make_job(tmp_path)
    done = (1, 3, 5, 6, 7, 8, 9, 20)
    run_rows(job, [answer(n) if n != 3 else outcome(3, failed="x") for n in done], parts=[1])
    with Results.open(job.output.path) as results:
        with pytest.raises(UnfinishedError, match="8 of 22"):
            export_dataset(results, tmp_path / "ds")
        assert not (tmp_path / "ds").exists()
        assert export_dataset(results, tmp_path / "ds", partial=True) == (8, 3)
        expected = rows_of(results)
    files = sorted((tmp_path / "ds/data").iterdir())
    assert [path.name for path in files] == [f"train-{n:05d}-of-00003.parquet" for n in range(3)]
    assert [row for path in files for row in pq.read_table(path).to_pylist()] == expected
    card = (tmp_path / "ds/README.md").read_text()
    assert "8 rows, the first to be ready of 22:" in card
    assert "| rows | 8 (7 completed, 1 failed) |\n| prompt tokens | 21 |\n| completion tokens | 35 |" in card


def test_what_is_in_the_way(tmp_path: Path) -> None:
    """A folder is replaced only on demand, and only if it holds nothing but such a dataset."""
    with finished(tmp_path, [{"text": "t"}] * 7) as results:
        (tmp_path / "ds").mkdir()
        export_dataset(results, tmp_path / "ds")
        with pytest.raises(StorageError, match=r"exists; --force"):
            export_dataset(results, tmp_path / "ds")
        (tmp_path / "ds/README.md").write_text("edited")
        export_dataset(results, tmp_path / "ds", force=True)
        assert (tmp_path / "ds/README.md").read_text() != "edited"
        for foreign in ("notes.txt", "data/mine.parquet", "data/sub/x"):
            path = tmp_path / "ds" / foreign
            path.parent.mkdir(exist_ok=True)
            path.write_text("mine")
            with pytest.raises(StorageError, match="nothing was replaced"):
                export_dataset(results, tmp_path / "ds", force=True)
            assert path.read_text() == "mine"
            path.unlink()
        (tmp_path / "ds/data/sub").rmdir()
        (tmp_path / "file").write_text("mine")
        (tmp_path / "link").symlink_to(tmp_path / "ds")
        for place in (tmp_path / "file", tmp_path / "link", results.path, results.path / "ds", tmp_path / "no" / "ds"):
            with pytest.raises(StorageError):
                export_dataset(results, place, force=True)
        assert (tmp_path / "file").read_text() == "mine"
        assert len(names(tmp_path / "ds")) == 3
    assert {path.name for path in tmp_path.iterdir()} == {"ds", "file", "link", "out", "rows.jsonl"}


def test_the_parts_outlive_it(tmp_path: Path) -> None:
    """Replacing a dataset, or deleting it, leaves the run as it is."""
    with finished(tmp_path, [{"text": "t"}] * 7) as results:
        before = {part.path: part.path.read_bytes() for part in results.parts()}
        export_dataset(results, tmp_path / "ds")
        export_dataset(results, tmp_path / "ds", force=True)
        assert {path: path.read_bytes() for path in before} == before
        assert results.finished


def test_one_that_fails_midway(tmp_path: Path) -> None:
    """Nothing is left of it."""
    with finished(tmp_path, [{"text": "t"}] * 7) as results:
        results.parts()[1].path.write_bytes(b"torn")
        results._totals.clear()
        with pytest.raises(StorageError, match="part-00001"):
            export_dataset(results, tmp_path / "ds")
    assert {path.name for path in tmp_path.iterdir()} == {"out", "rows.jsonl"}
