"""What a job is told whose paths, includes and excludes leave nothing, by the store of files."""

from pathlib import Path

import pytest

from services.common.errors import CortexError
from services.scheduler.adapters.file_store import FileStore
from services.scheduler.domain.model.item_stream import Source, SourceKind
from services.scheduler.usecases.input.selection import Selection


class Selecting:
    def __init__(self, root: Path) -> None:
        self._root = root

    async def refusal(self, *prefixes: str, includes: tuple[str, ...] = (), excludes: tuple[str, ...] = ()) -> str:
        """Why nothing is chosen, the root left out."""
        paths = tuple(f"file://{self._root}/{prefix}" for prefix in prefixes)
        selection = Selection(FileStore([self._root]), Source(SourceKind.FILE_PATHS, paths, includes, excludes))
        with pytest.raises(CortexError, match=r"^no s3 files match search criteria: ") as caught:
            await selection.check()
        assert caught.value.kind == "batchapi.no_s3_files_found"
        return str(caught.value).partition(": ")[2].replace(f"file://{self._root}/", "")


@pytest.fixture
def selection(tmp_path: Path) -> Selecting:
    """Chooses among three files."""
    for name in ("in/a.json", "in/b.json", "in/more/c.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return Selecting(tmp_path)


async def test_it_says_where_nothing_is(selection: Selecting) -> None:
    assert await selection.refusal("out/", "in/z") == "there is nothing under out/, in/z"
    assert await selection.refusal("out/", includes=("**.json",)) == "there is nothing under out/"


async def test_it_says_that_there_are_files_and_all_of_them_are_left_out(selection: Selecting) -> None:
    refusal = await selection.refusal("in/", includes=("*.json",))  # `*` stops at `/`
    assert refusal.startswith("includes and excludes leave out all 3 files under in/; they describe whole paths")
    refusal = await selection.refusal("in/more/", "out/", excludes=("**.txt",))
    assert refusal.startswith("includes and excludes leave out the one file under in/more/, out/; they")
