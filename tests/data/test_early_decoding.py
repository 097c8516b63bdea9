"""Images are decoded while training's imports go on; a failure of either leaves the other whole."""

import shutil
import threading

import pytest
from toy import toy_config

from kit.core.errors import KitError
from kit.core.progress import silent
from kit.data.competition import open_all_files
from kit.data.early_decoding import decoding_meanwhile
from kit.data.pixel_cache import open_cache


@pytest.fixture
def undecoded(toy):
    shutil.rmtree(toy / ".cache")
    return toy


def steps_of(workspace):
    steps = []

    def track(items, description, total):
        steps.append(description)
        yield from items

    return steps, open_all_files(workspace, toy_config(), track)


def test_the_caches_are_open_and_stored_when_the_body_has_ended(undecoded):
    with decoding_meanwhile(undecoded, toy_config(), silent) as opened:
        pass
    steps, again = steps_of(undecoded)
    assert steps == []  # nothing is decoded again
    assert opened == again
    assert set(opened) == {"train", "test"}
    assert len(list((undecoded / ".cache").glob("*.copies.npy"))) == 2


def test_a_workspace_without_a_test_half_has_one_cache(undecoded):
    shutil.rmtree(undecoded / "data" / "test")
    with decoding_meanwhile(undecoded, toy_config(), silent) as opened:
        pass
    assert set(opened) == {"train"}


@pytest.mark.parametrize("lost", ["data/train", "data"])
def test_what_cannot_be_opened_is_said_by_whoever_opens_it_next(undecoded, lost):
    shutil.rmtree(undecoded / lost)
    with decoding_meanwhile(undecoded, toy_config(), silent) as opened:
        pass
    assert opened == {}
    with pytest.raises(KitError):
        open_all_files(undecoded, toy_config())


def test_an_interruption_of_the_body_ends_the_decoding_and_leaves_nothing_half_made(undecoded, monkeypatch):
    begun, goes_on = threading.Event(), threading.Event()

    class Decoding(threading.Thread):
        def join(self, timeout=None):
            goes_on.set()  # not before the decoding is given up
            super().join(timeout)

    monkeypatch.setattr("kit.data.early_decoding.threading.Thread", Decoding)

    def track(items, description, total):
        for item in items:
            yield item
            begun.set()
            goes_on.wait()

    with pytest.raises(KeyboardInterrupt), decoding_meanwhile(undecoded, toy_config(), track) as opened:
        begun.wait()
        raise KeyboardInterrupt
    assert opened == {}
    assert not list((undecoded / ".cache").glob("*.u8"))
    assert not [thread for thread in threading.enumerate() if thread.name == "decoding"]
    assert open_cache(undecoded / "data" / "test", undecoded / ".cache", 1.0).facts
