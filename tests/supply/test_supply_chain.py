"""What is installed is pinned by hash and has a licence that may be used; each image's list of it is whole."""

from __future__ import annotations

import re
from email.message import Message

import pytest

from scripts import hashed, licences
from scripts.recipes import IMAGES, read
from scripts.requirements import installs, pins

RULES = licences.Rules(frozenset({"MIT", "BSD"}), {"BSD License": "BSD"}, {"odd": "GPL-3.0"})
TEXT = hashed.FILE.read_text("utf8")


def metadata(**fields: str) -> Message:
    """A package's metadata."""
    found = Message()
    for name, value in fields.items():
        found[name.replace("_", "-")] = value
    return found


def test_every_dependency_has_a_licence_that_may_be_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert licences.main() == 0, capsys.readouterr().err


@pytest.mark.parametrize(
    "given",
    [metadata(License_Expression="MIT OR BSD"), metadata(Classifier="License :: OSI Approved :: BSD License"),
     metadata(License="MIT AND BSD")],
)  # fmt: skip
def test_a_licence_is_read_wherever_it_is_named(given: Message) -> None:
    assert licences.problem("p", given, RULES) == ""


@pytest.mark.parametrize(
    "given", [metadata(), metadata(License_Expression="MIT AND GPL-3.0"), metadata(License="my own words")]
)
def test_a_licence_that_is_unknown_or_not_allowed_is_found(given: Message) -> None:
    assert licences.problem("p", given, RULES)


def test_an_exception_needs_a_reason_and_goes_when_it_is_not_needed() -> None:
    assert licences.problem("odd", metadata(License="GPL-3.0"), RULES) == ""
    assert "no exception" in licences.problem("odd", metadata(License="MIT"), RULES)
    with pytest.raises(ValueError, match="no reason"):
        licences.read_rules("{allowed: [], spellings: {}, packages: {p: {licence: X}}}")


def test_every_hashed_pin_is_the_pin_of_the_constraints() -> None:
    pinned = pins()
    found = {name: re.match(r"[^=]+==([^ ;]+)", entry) for name, entry in hashed.entries(TEXT).items()}
    versions = {name: match.group(1) for name, match in found.items() if match}
    assert {name: each for name, each in versions.items() if name in pinned} == {
        name: pinned[name] for name in versions.keys() & pinned.keys()
    }
    for name in versions.keys() - pinned.keys():  # CUDA's libraries, of the Linux build of PyTorch
        assert name.startswith(("nvidia-", "cuda-", "triton")) or "sys_platform" in hashed.entries(TEXT)[name], name


def test_every_pin_has_a_hash_and_no_place_is_named() -> None:
    for name, entry in hashed.entries(TEXT).items():
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), name
    assert "://" not in TEXT and "--index" not in TEXT and "--find-links" not in TEXT


@pytest.mark.parametrize("image", IMAGES)
def test_an_images_part_holds_all_that_it_installs(image: str) -> None:
    extras = read(image).extras
    assert installs(extras) - hashed.part(extras, TEXT).keys() == set(), "run `make hashes`"


def test_an_image_is_not_given_what_only_others_need() -> None:
    assert not {"torch", "transformers", "xllamacpp"} & hashed.part(read("sink").extras, TEXT).keys()
    assert "torch" in hashed.part(read("judge").extras, TEXT)
