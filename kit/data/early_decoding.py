"""Decodes a workspace's images in threads while its caller imports what training needs."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from kit.config import Config
from kit.core.progress import Track
from kit.data.competition import open_all_files
from kit.data.duplicates import small_copies
from kit.data.pixel_cache import PixelCache


class _GivenUpError(Exception):
    """The caller failed or was interrupted: its images are not needed."""


@contextlib.contextmanager
def decoding_meanwhile(workspace: Path, config: Config, track: Track) -> Iterator[dict[str, PixelCache]]:
    """Open the images of ``train/`` and ``test/``, and make their small copies, during the body.

    Yields the caches by folder, which are there when the context ends. An error of the body stops the decoding. One
    of the decoding leaves the caches empty and is not raised: whoever opens the images next meets it again.
    """
    opened: dict[str, PixelCache] = {}
    given_up = threading.Event()

    def until_given_up(items: Iterable[Any], description: str, total: int) -> Iterator[Any]:
        for item in track(items, description, total):
            if given_up.is_set():
                raise _GivenUpError
            yield item

    def decode() -> None:
        with contextlib.suppress(Exception):
            caches = open_all_files(workspace, config, until_given_up)
            small_copies(list(caches.values()), until_given_up)
            opened.update(caches)

    thread = threading.Thread(target=decode, name="decoding", daemon=True)
    with warnings.catch_warnings():  # the decoding sets filters, which act on the whole process
        thread.start()
        try:
            yield opened
            thread.join()
        except BaseException:
            given_up.set()
            thread.join()
            raise
