from types import SimpleNamespace

import pytest

from numerai_predict import elsewhere
from numerai_predict.elsewhere import smallest_image, where
from numerai_predict.images import IMAGES

SIX, ELEVEN, FULL = (f"numerai_predict_py_{name}" for name in ("3_6", "3_11", "3_11_full"))


@pytest.fixture(autouse=True)
def images(monkeypatch):
    modules = {
        "trees": "3_6 3_11",
        "plots": "3_6_full 3_11",
        "nets": "3_6_full 3_11_full",
        "forests": "3_6_full/amd64 3_11_full/amd64",
        "old": "3_6",
        "new": "3_11_full",
    }
    monkeypatch.setattr(elsewhere, "MODULES", modules)


def on(monkeypatch, machine, python=(3, 11)):
    monkeypatch.setattr(elsewhere.os, "uname", lambda: SimpleNamespace(machine=machine))
    monkeypatch.setattr(elsewhere.sys, "version_info", (*python, 4))


@pytest.mark.parametrize(
    "python, package, says",
    [
        ((3, 11), "trees", f"{ELEVEN} has it"),
        ((3, 11), "nets", f"{FULL} has it"),
        ((3, 6), "plots", f"{SIX}_full has it"),
        ((3, 11), "forests", f"{FULL} has it"),
        ((3, 11), "old", f"no image of Python 3.11 has it; {SIX} does"),
        ((3, 12), "nets", f"no image of Python 3.12 has it; {SIX}_full and {FULL} do"),
    ],
)
def test_an_image_of_this_python_is_named_before_others(monkeypatch, python, package, says):
    on(monkeypatch, "x86_64", python)
    assert where(package) == says


def test_the_platform_is_named_where_it_is_another(monkeypatch):
    on(monkeypatch, "aarch64")
    assert where("forests") == f"{FULL} for linux/amd64 has it"
    assert where("nets") == f"{FULL} has it"


def test_what_no_image_has_may_be_the_users_own():
    assert where("mine").startswith("no image has it. If it is your own code, store it")
    assert where("mine").endswith("register_pickle_by_value(mine)")


@pytest.mark.parametrize(
    "modules, image",
    [
        ([], ELEVEN),
        (["trees.boosted", "plots", "json", "mine"], ELEVEN),
        (["trees", "nets.layers"], FULL),
        (["nets", "trees"], FULL),
        (["forests"], FULL),
        (["trees", "old"], None),
    ],
)
def test_the_smallest_image_that_has_them_all(modules, image):
    assert smallest_image((3, 11), modules) == image


def test_what_every_image_and_only_the_full_one_has(monkeypatch):
    monkeypatch.undo()
    for python in IMAGES:
        image = "numerai_predict_py_{}_{}".format(*python)
        tabular = ["lightgbm", "xgboost", "sklearn", "PIL", "yaml", "dateutil"]
        assert smallest_image(python, tabular) == image
        for module in ("torch.nn", "tensorflow", "jax", "pytorch_lightning", "absl"):
            assert smallest_image(python, [*tabular, module]) == f"{image}_full"
