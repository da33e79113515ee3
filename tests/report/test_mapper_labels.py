"""Labels of mappers in words."""

from __future__ import annotations

from hwsim.mapper_options import label
from hwsim.mappers.offload import OffloadOptions
from hwsim.report.mapper_labels import short_labels


def test_what_all_share_is_said_once() -> None:
    halves = "offload[weights=[0.5, 0.5, 0],cache=[0, 1, 0],batches=3]"
    host = "offload[weights=[0, 1, 0],cache=[0, 1, 0],attention=host]"
    short, shared = short_labels([halves, host, halves, "fused"])
    assert short == {
        halves: "offload: weights 0.5/0.5/0, batches 3",
        host: "offload: weights 0/1/0, attention host",
        "fused": "fused",
    }
    assert shared == "offload: cache 0/1/0"


def test_a_single_label_keeps_its_options() -> None:
    given = "instorage[at=[csd0.nand, csd1.nand],chosen=0.125]"
    assert short_labels([given]) == ({given: "instorage: at csd0.nand/csd1.nand, chosen 0.125"}, "")


def test_different_options_stay_different() -> None:
    texts = ["kv", "kv[drop=0.5]", "kv[drop=0.5,keys=int4]", "kv[keys=int4]"]
    assert len(set(short_labels(texts)[0].values())) == len(texts)


def test_labels_of_real_options_are_read() -> None:
    given = label("offload", OffloadOptions(weights=(0.25, 0.75, 0.0), chunk=32768.0, overlap=False))
    assert short_labels([given])[0][given] == "offload: weights 0.25/0.75/0, chunk 32.768 kB, overlap false"
