"""Items that are made ahead are the same ones, in the same order, and their errors arrive."""

import threading

import pytest
from command_line import PATIENCE_SECONDS

from kit.core.threads import made_ahead


def test_they_are_the_same_items_none_among_them():
    assert list(made_ahead(iter([3, None, 1]))) == [3, None, 1]
    assert list(made_ahead(iter([]))) == []


def test_the_next_one_is_made_while_one_is_used_and_no_further():
    made, makers = [], set()
    second = threading.Event()

    def items():
        for number in range(4):
            made.append(number)
            makers.add(threading.current_thread())
            if number == 1:
                second.set()
            yield number

    ahead = made_ahead(items())
    assert next(ahead) == 0
    assert second.wait(PATIENCE_SECONDS)
    assert made == [0, 1]
    ahead.close()
    (maker,) = makers
    assert maker is not threading.current_thread()
    assert not maker.is_alive()


def test_an_error_comes_after_the_items_before_it():
    def items():
        yield 1
        raise ValueError("broken")

    ahead = made_ahead(items())
    assert next(ahead) == 1
    with pytest.raises(ValueError, match="broken"):
        next(ahead)
