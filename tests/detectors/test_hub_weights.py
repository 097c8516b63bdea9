"""Published weights of D-FINE and RF-DETR: fetched, put there by hand, or from a file; and kept for a run."""

import dataclasses
import hashlib
import json
import re
import shutil
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from kit.config import ModelConfig
from kit.core.errors import KitError
from kit.detectors import networks
from kit.detectors.hub_weights import by_hand, starting_file
from kit.detectors.weights import load_initial_weights, resolve_norms

REPOSITORY = "ustc-community/dfine-small-coco"
COCO = ModelConfig(detector="dfine", size="s", weights="coco")
OLD, NEW = "a" * 40, "b" * 40
save_file = pytest.importorskip("safetensors.torch", reason="the extra detr is not installed").save_file


class Hub:
    """A hub on this machine with a file of weights in each revision; ``asked`` has the paths of the requests."""

    def __init__(self):
        self.files, self.main, self.asked = {}, OLD, []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                hub.asked.append(self.path)
                found = re.fullmatch(rf"/{REPOSITORY}/resolve/(\w+)/model\.safetensors", self.path)
                commit = found and (hub.main if found[1] == "main" else found[1])
                if commit not in hub.files:
                    self.send_error(404)
                    return
                content = hub.files[commit]
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.send_header("X-Repo-Commit", commit)
                self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(content)

            do_HEAD = do_GET

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """No hub: its caches are empty, it is switched off, and its address refuses."""
    constants = pytest.importorskip("huggingface_hub.constants", reason="the extra detr is not installed")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # the discard port
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def hub(offline, monkeypatch):
    hub = Hub()
    monkeypatch.setattr(sys.modules["huggingface_hub.constants"], "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_ENDPOINT", hub.address)
    yield hub
    hub.server.shutdown()
    hub.server.server_close()


def a_file(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"a": torch.full((2,), float(value))}, path)
    return path


def content(tmp_path, value):
    return a_file(tmp_path / f"{value}.safetensors", value).read_bytes()


def test_a_file_is_fetched_and_the_run_keeps_its_revision_and_hash(hub, tmp_path):
    hub.files = {OLD: content(tmp_path, 1)}
    record = tmp_path / "weights.json"
    path = starting_file(COCO, REPOSITORY, record)
    assert path.read_bytes() == hub.files[OLD]
    digest = hashlib.sha256(hub.files[OLD]).hexdigest()
    assert json.loads(record.read_text()) == {
        "repository": REPOSITORY, "file": "model.safetensors", "revision": OLD, "sha256": digest,
    }  # fmt: skip
    hub.files[NEW], hub.main = content(tmp_path, 2), NEW
    again = starting_file(COCO, REPOSITORY, record)
    assert again.read_bytes() == hub.files[OLD], "a run goes on with its own revision"
    other = starting_file(COCO, REPOSITORY, tmp_path / "other.json")
    assert other.read_bytes() == hub.files[NEW]
    assert all("main" in path or OLD in path for path in hub.asked)


def test_a_revision_whose_file_has_changed_is_refused_and_another_run_takes_it(hub, tmp_path):
    hub.files = {OLD: content(tmp_path, 1)}
    record = tmp_path / "weights.json"
    starting_file(COCO, REPOSITORY, record)
    shutil.rmtree(tmp_path / "cache")
    hub.files = {OLD: content(tmp_path, 2)}
    with pytest.raises(KitError, match="as it was when the run began") as caught:
        starting_file(COCO, REPOSITORY, record)
    assert "another --run NAME" in caught.value.do
    starting_file(COCO, REPOSITORY, tmp_path / "another.json")
    shutil.rmtree(tmp_path / "cache")
    hub.files = {OLD: content(tmp_path, 1)}  # restored
    starting_file(COCO, REPOSITORY, record)


def test_offline_the_error_names_repository_file_and_place_and_the_advice_works(offline, tmp_path):
    with pytest.raises(KitError) as caught:
        starting_file(COCO, REPOSITORY, tmp_path / "weights.json")
    assert REPOSITORY in caught.value.expected and "model.safetensors" in caught.value.expected
    assert f"https://huggingface.co/{REPOSITORY}/resolve/main/model.safetensors" in caught.value.do
    place = re.search(r"put it at (\S+),", caught.value.do)[1]
    assert place == str(by_hand(REPOSITORY))
    assert not (tmp_path / "weights.json").exists()
    by_hand(REPOSITORY).parent.mkdir(parents=True)
    by_hand(REPOSITORY).write_bytes(content(tmp_path, 3))
    assert starting_file(COCO, REPOSITORY, tmp_path / "weights.json") == by_hand(REPOSITORY)
    assert json.loads((tmp_path / "weights.json").read_text())["revision"] == ""
    none = re.search(r"--set model\.weights=(\w+)", caught.value.do)[1]
    assert load_initial_weights(torch.nn.Identity(), dataclasses.replace(COCO, weights=none)) == []


@pytest.mark.slow  # the hub's client tries it again for half a minute
def test_a_hub_out_of_reach_is_an_error_in_words(offline, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["huggingface_hub.constants"], "HF_HUB_OFFLINE", False)
    with pytest.raises(KitError, match=REPOSITORY) as caught:
        starting_file(COCO, REPOSITORY, None)
    assert "put it at" in caught.value.do


def test_a_file_of_this_machine_is_kept_by_its_hash_wherever_it_lies(tmp_path):
    config = dataclasses.replace(COCO, weights=str(a_file(tmp_path / "w.safetensors", 1)))
    record = tmp_path / "weights.json"
    starting_file(config, REPOSITORY, record)
    assert json.loads(record.read_text())["repository"] == ""
    starting_file(config, REPOSITORY, record)
    a_file(tmp_path / "w.safetensors", 2)
    with pytest.raises(KitError, match="as it was when the run began"):
        starting_file(config, REPOSITORY, record)
    a_file(tmp_path / "w.safetensors", 1)
    starting_file(config, REPOSITORY, record)
    starting_file(config, REPOSITORY, None)


def test_a_file_that_is_missing_and_a_record_that_is_broken_are_refused_by_name(tmp_path):
    config = dataclasses.replace(COCO, weights=str(tmp_path / "none.safetensors"))
    with pytest.raises(KitError, match=r"none\.safetensors") as caught:
        starting_file(config, REPOSITORY, None)
    a_file(tmp_path / "none.safetensors", 1)
    assert "the path of a file that exists" in caught.value.do
    starting_file(config, REPOSITORY, None)
    (tmp_path / "weights.json").write_text("{}")
    with pytest.raises(KitError, match=r"weights\.json") as caught:
        starting_file(config, REPOSITORY, tmp_path / "weights.json")
    assert f"restore {tmp_path / 'weights.json'}" in caught.value.do


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dfine", "rfdetr"])
def test_weights_as_published_fill_all_but_the_class_heads(name, tmp_path):
    """A file as transformers saves it for 80 classes, whose names differ from those that it has in memory."""
    pytest.importorskip("transformers", reason="the extra detr is not installed")
    torch.manual_seed(3)
    published = networks.build(resolve_norms(ModelConfig(detector=name, size="tiny")), 80)
    published.network.save_pretrained(tmp_path)
    config = resolve_norms(ModelConfig(detector=name, size="tiny", weights=str(tmp_path / "model.safetensors")))
    torch.manual_seed(4)
    network = networks.build(config, 8)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    random = load_initial_weights(network, config, tmp_path / "weights.json")
    assert random and all("class_embed" in key or "enc_score_head" in key for key in random)
    for key, tensor in network.state_dict().items():
        expected = before if key in random else published.state_dict()
        assert torch.equal(tensor, expected[key]), key
    other = {"dfine": "rfdetr", "rfdetr": "dfine"}[name]
    wrong = resolve_norms(ModelConfig(detector=other, size="tiny", weights=config.weights))
    with pytest.raises(KitError, match="to fit this detector"):
        load_initial_weights(networks.build(wrong, 8), wrong)


@pytest.mark.slow
@pytest.mark.parametrize(
    "content",
    [
        {"model": {"a": torch.zeros(2)}},  # as D-FINE's own repository has them
        {"a": 3},
        {"model.decoder.class_embed.0.weight": torch.zeros(3, dtype=torch.complex64)},
        {"model.enc_output.0.weight": torch.zeros(0)},
        {},
    ],
)
def test_a_file_of_other_things_is_refused_and_one_of_this_size_is_taken(content, tmp_path):
    pytest.importorskip("transformers", reason="the extra detr is not installed")
    path = tmp_path / "w.pth"
    torch.save(content, path)
    config = ModelConfig(detector="dfine", size="tiny", weights=str(path))
    network = networks.build(resolve_norms(config), 8)
    with pytest.raises(KitError, match="to fit this detector") as caught:
        load_initial_weights(network, config)
    assert "model.size" in caught.value.do
    weights = network.state_dict()
    name = "network.model.decoder.class_embed.0.weight"
    for names in ("", "network."):  # as published, and as kit writes them
        spoilt = {names + key.removeprefix("network."): tensor for key, tensor in weights.items()}
        spoilt[names + name.removeprefix("network.")] = torch.full_like(weights[name], torch.nan)
        torch.save({"state_dict": spoilt}, path)
        with pytest.raises(KitError, match=f"tensor {name}") as caught:
            load_initial_weights(network, config)
        assert str(path) in caught.value.expected
    torch.save({"state_dict": network.state_dict()}, path)
    assert load_initial_weights(network, config) == []


def test_weights_of_imagenet_are_refused_and_the_advice_works():
    config = ModelConfig(detector="dfine", size="tiny", weights="imagenet")
    with pytest.raises(KitError, match="weights that exist for dfine") as caught:
        load_initial_weights(torch.nn.Identity(), config)
    none = re.search(r"--set model\.weights=(\w+)", caught.value.do)[1]
    assert load_initial_weights(torch.nn.Identity(), dataclasses.replace(config, weights=none)) == []
