"""What a training goes on from: whole, or refused in words before Lightning takes it."""

import copy
import re

import pytest
import torch

from kit.config import load
from kit.core.errors import KitError
from kit.runs.detecting import bare_detector, kept_weights
from kit.runs.folder import Run, read_split
from kit.training.resume import PROGRESS, resume_state
from kit.training.train import train


@pytest.fixture(scope="module")
def whole(trained_source):
    """A run, its bare detector, and the content of its ``last.ckpt``."""
    run = Run(trained_source, "demo")
    return run, bare_detector(load(run.config), read_split(run)), torch.load(run.last, weights_only=True)


def broken_states(state):
    """What is wrong, and the state with it."""
    for name in ("state_dict", "callbacks", "optimizer_states", "lr_schedulers", "loops", "epoch", "global_step"):
        yield f"no {name}", {key: value for key, value in state.items() if key != name}
        yield f"a text for {name}", {**state, name: "x"}
    rows = state["callbacks"][PROGRESS]["rows"]
    for name, content in {
        "no rows": {},
        "a text for the rows": {"rows": "x"},
        "a row that is none": {"rows": [*rows, 3]},
        "a row without a number": {"rows": [{**rows[0], "map50": "x"}]},
        "a row with a part too few": {"rows": [{"epoch": 1}]},
    }.items():
        yield name, {**state, "callbacks": {PROGRESS: content}}
    yield "no callback of ours", {**state, "callbacks": {}}
    (optimizer,) = state["optimizer_states"]
    for what, content in {
        "an optimizer that is none": 3,
        "an optimizer that remembers nothing": {"param_groups": []},
        "a number for what it remembers of a weight": {**optimizer, "state": {0: 3}},
    }.items():
        yield what, {**state, "optimizer_states": [content]}
    yield "two optimizers", {**state, "optimizer_states": state["optimizer_states"] * 2}
    yield "no loop", {**state, "loops": {}}
    weights = state["state_dict"]
    first = next(iter(weights))
    for name in ("state_dict", "current_model_state"):
        for what, content in {
            "a tensor too few": {key: tensor for key, tensor in weights.items() if key != first},
            "a tensor too many": {**weights, "more": torch.zeros(1)},
            "a tensor of another shape": {**weights, first: torch.zeros(1, 2)},
            "a number for a tensor": {**weights, first: 3},
            "a number for a name": {**weights, 3: torch.zeros(1)},
        }.items():
            yield f"{name}: {what}", {**state, name: content}


def test_a_run_that_has_not_begun_starts_from_nothing(whole, tmp_path):
    assert resume_state(Run(tmp_path, "new"), whole[1]) == {}


def test_a_whole_state_is_taken_as_it_is(whole):
    run, detector, state = whole
    assert resume_state(run, detector).keys() == state.keys()


def test_a_state_that_lacks_something_is_refused_before_it_is_gone_on_from(whole, tmp_path):
    _, detector, state = whole
    run = Run(tmp_path, "demo")
    run.folder.mkdir(parents=True)
    for name, content in broken_states(state):
        torch.save(content, run.last)
        try:
            with pytest.raises(KitError, match="a state that `invoke train` goes on from") as error:
                resume_state(run, detector)
            assert error.value.found
            assert str(run.last) in error.value.expected
        except BaseException as problem:
            problem.add_note(f"mutant: {name}")
            raise


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
@pytest.mark.parametrize("name", ["state_dict", "current_model_state", "optimizer_states"])
def test_a_value_that_is_no_finite_number_is_refused_by_its_tensor(name, value, whole, tmp_path):
    _, detector, state = whole
    state = copy.deepcopy(state)
    state["current_model_state"] = copy.deepcopy(state["state_dict"])
    weights = state["optimizer_states"][0]["state"][0] if name == "optimizer_states" else state[name]
    tensor = "exp_avg" if name == "optimizer_states" else "backbone.body.stem.0.weight"
    weights[tensor][(0,) * weights[tensor].ndim] = value
    run = Run(tmp_path, "demo")
    run.folder.mkdir(parents=True)
    torch.save(state, run.last)
    with pytest.raises(KitError) as caught:
        resume_state(run, detector)
    assert re.fullmatch(rf"tensor {tensor}.*: 1 of its \d+ values NaN or infinite", caught.value.found)
    assert caught.value.do == f"restore it from a copy, or delete {run.home} and start anew"
    run.last.unlink()  # as the advice says
    assert resume_state(run, detector) == {}


def test_weights_that_are_no_finite_numbers_do_not_detect(whole, tmp_path):
    trained, _, state = whole
    run = Run(tmp_path, "demo")
    run.folder.mkdir(parents=True)
    spoilt = {**state["state_dict"], "backbone.body.stem.0.weight": torch.full((2, 2), torch.nan)}
    torch.save({**state, "state_dict": spoilt}, run.best)
    with pytest.raises(KitError, match=r"stem\.0\.weight: 4 of its 4 values NaN") as caught:
        kept_weights(run, "best")
    assert str(run.best) in caught.value.expected and "restore it from a copy" in caught.value.do
    run.best.write_bytes(trained.best.read_bytes())  # as the advice says
    assert kept_weights(run, "best")[1] == state["kit"]["epoch"]


@pytest.mark.slow
def test_training_says_so_and_leaves_the_file(trained):
    run = Run(trained, "demo")
    run.finished.unlink()
    state = torch.load(run.last, weights_only=True)
    del state["optimizer_states"]
    torch.save(state, run.last)
    before = run.last.read_bytes()
    with pytest.raises(KitError, match="without optimizer_states"):
        train(trained, "demo")
    assert run.last.read_bytes() == before
