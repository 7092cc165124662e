"""Jobs: where compiled programs are kept, and what happens where nothing can be."""

import os
from pathlib import Path

import jax
import pytest

from plantjax.jobs import job


def nobody(path: type[Path]) -> Path:
    """The home folder of a user without HOME and without an entry in passwd."""
    raise RuntimeError("Could not determine home directory.")


@pytest.mark.parametrize(
    ("given", "kept", "said"),
    [
        ("{}/xla", True, ""),
        ("", False, ""),
        (None, False, "the home folder is not known"),
        ("{}/file/xla", False, "file/xla cannot be written"),
        ("gs://bucket/xla", True, ""),
    ],
)
def test_programs_are_kept_where_they_can_be(
    given: str | None,
    kept: bool,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(Path, "home", classmethod(nobody))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    (tmp_path / "file").touch()
    if given is not None:
        monkeypatch.setitem(os.environ, "JAX_COMPILATION_CACHE_DIR", given.format(tmp_path))
    before = jax.config.jax_compilation_cache_dir
    try:
        job.use_compilation_cache()
        assert bool(jax.config.jax_compilation_cache_dir) == kept
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == bool(said)
    assert said in "".join(lines)
