"""The same model in other files is the same model; another one is not, however alike its files are."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from budc.schema.digest_cache import DigestCache
from budc.schema.digests import file_digests, tensor_root
from budc.schema.errors import BudcError, UnsafeWeights, UnsupportedModel, WeightsMismatch, WeightsMissing
from budc.schema.model_files import SAVED_AGAIN, accepted_files
from budc.schema.policy import ModelBinding, PolicyDocument, Variant

CONFIG = {
    "_class_name": "WanTransformer3DModel",
    "_diffusers_version": "0.33.0",
    "num_layers": 2,
    "image_dim": None,
}
TENSORS = {"a": (1.0, 2.0), "b": (3.0,)}
SINGLE = "diffusion_pytorch_model.safetensors"
NAMES = ("transformer/config.json", f"transformer/{SINGLE}", "scheduler/scheduler_config.json")


def save(path: Path, tensors: dict[str, tuple[float, ...]], **metadata: str) -> None:
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    data = b""
    for name, values in tensors.items():
        content = struct.pack(f"<{len(values)}f", *values)
        header[name] = {
            "dtype": "F32",
            "shape": [len(values)],
            "data_offsets": [len(data), len(data) + len(content)],
        }
        data += content
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("transformer", "scheduler"):
        (tmp_path / name).mkdir()
    (tmp_path / NAMES[0]).write_text(json.dumps(CONFIG))
    (tmp_path / NAMES[2]).write_text("{}")
    save(tmp_path / NAMES[1], TENSORS)
    return tmp_path


@pytest.fixture
def model(folder: Path, make_document: Callable[..., PolicyDocument]) -> ModelBinding:
    """What binds a policy to that folder."""
    binding = make_document().model
    denoiser = replace(
        binding.denoisers[0],
        tensor_root=tensor_root([folder / NAMES[1]]),
        config={"num_layers": 2, "image_dim": None},
    )
    return replace(
        binding,
        denoisers=[denoiser],
        variants=[Variant(name="original", files=file_digests(folder, NAMES))],
    )


def accepted(folder: Path, model: ModelBinding, **options: Any) -> Variant:
    return accepted_files(folder, model, DigestCache(), **options)


def test_files_as_they_were_are_the_listed_variant(folder: Path, model: ModelBinding) -> None:
    assert accepted(folder, model) is model.variants[0]


def config(**settings: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        kept = {name: value for name, value in (CONFIG | settings).items() if value != "left out"}
        (folder / NAMES[0]).write_text(json.dumps(kept, indent=2).replace("\n", "\r\n"))

    return change


def reordered(folder: Path) -> None:
    (folder / NAMES[0]).write_text(json.dumps(dict(reversed(CONFIG.items()))))


def reserialised(folder: Path) -> None:
    save(folder / NAMES[1], dict(reversed(TENSORS.items())), format="pt")


def sharded(folder: Path) -> None:
    (folder / NAMES[1]).unlink()
    for index, name in enumerate(TENSORS):
        save(folder / "transformer" / f"model-{index}.safetensors", {name: TENSORS[name]})
    weight_map = {name: f"model-{index}.safetensors" for index, name in enumerate(TENSORS)}
    (folder / "transformer" / f"{SINGLE}.index.json").write_text(json.dumps({"weight_map": weight_map}))


def other_sampler(folder: Path) -> None:
    (folder / NAMES[2]).write_text('{"flow_shift": 5.0}')


SAME: dict[str, Callable[[Path], None]] = {
    "a note of the library": config(_name_or_path="/models/wan", _diffusers_version="0.42.1"),
    "other keys first": reordered,
    "a newer library's setting, unset": config(pos_embed_seq_len=None),
    "an unset setting left out": config(image_dim="left out"),
    "another header": reserialised,
    "shards": sharded,
    "a sampler that is checked on its own": other_sampler,
}


@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
def test_a_model_that_was_saved_again_is_the_same(
    folder: Path, model: ModelBinding, change: Callable[[Path], None]
) -> None:
    change(folder)
    variant = accepted(folder, model)
    assert variant.name == SAVED_AGAIN
    assert dict(variant.files) == file_digests(folder, variant.files)
    assert all(name.startswith("transformer/") for name in variant.files)


def test_a_newer_librarys_setting_passes_at_its_default_alone(folder: Path, model: ModelBinding) -> None:
    config(qk_norm="rms")(folder)
    with pytest.raises(
        WeightsMismatch, match=r"config\.json in .*: qk_norm is 'rms', the policy is for None"
    ):
        accepted(folder, model)
    assert accepted(folder, model, defaults=lambda name: {"qk_norm": "rms"}).name == SAVED_AGAIN
    with pytest.raises(WeightsMismatch, match="qk_norm is 'rms', the policy is for 'layer'"):
        accepted(folder, model, defaults=lambda name: {"qk_norm": "layer"})


def other_weights(folder: Path) -> None:
    save(folder / NAMES[1], TENSORS | {"b": (4.0,)})


def renamed(folder: Path) -> None:
    save(folder / NAMES[1], {"a": TENSORS["a"], "c": TENSORS["b"]})


def cut(folder: Path) -> None:
    path = folder / NAMES[1]
    path.write_bytes(path.read_bytes()[:-1])


def pointer(folder: Path) -> None:
    (folder / NAMES[1]).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")


def no_config(folder: Path) -> None:
    (folder / NAMES[0]).unlink()


def no_weights(folder: Path) -> None:
    (folder / NAMES[1]).unlink()


def twice(folder: Path) -> None:
    sharded(folder)
    save(folder / "transformer" / "more.safetensors", TENSORS)


def pickle_beside(folder: Path) -> None:
    sharded(folder)
    (folder / "transformer" / "diffusion_pytorch_model.bin").write_bytes(b"")


def linked_out(folder: Path) -> None:
    outside = folder.parent / f"{folder.name}.safetensors"
    (folder / NAMES[1]).rename(outside)
    reordered(folder)
    (folder / NAMES[1]).symlink_to(outside)


OTHERS: dict[str, tuple[Callable[[Path], None], type[BudcError], str]] = {
    "weights": (other_weights, WeightsMismatch, "the weights of transformer in .* have tensor root"),
    "names": (renamed, WeightsMismatch, "the weights of transformer in .* have tensor root"),
    "settings": (config(num_layers=3), WeightsMismatch, "num_layers is 3, the policy is for 2"),
    "a setting left out": (
        config(num_layers="left out"),
        WeightsMismatch,
        "num_layers is None, the policy is for 2",
    ),
    "class": (config(_class_name="FluxTransformer2DModel"), UnsupportedModel, "_class_name is 'FluxTr"),
    "a cut file": (cut, WeightsMismatch, r"safetensors in .* is incomplete or damaged"),
    "a pointer": (pointer, WeightsMismatch, r"safetensors in .* is a Git LFS pointer"),
    "no configuration": (no_config, WeightsMissing, r"transformer/config\.json"),
    "no weights": (no_weights, WeightsMissing, SINGLE),
    "a tensor twice": (twice, UnsafeWeights, "is in another file too"),
    "a pickle beside it": (pickle_beside, UnsafeWeights, r"diffusion_pytorch_model\.bin"),
    "a link out": (linked_out, UnsafeWeights, "out of the model folder"),
}


@pytest.mark.parametrize(("change", "kind", "message"), OTHERS.values(), ids=OTHERS)
def test_another_model_is_refused_by_what_differs(
    folder: Path, model: ModelBinding, change: Callable[[Path], None], kind: type[BudcError], message: str
) -> None:
    change(folder)
    with pytest.raises(kind, match=message):
        accepted(folder, model)


@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
def test_an_artifact_without_settings_is_bound_to_bytes(
    folder: Path, model: ModelBinding, change: Callable[[Path], None]
) -> None:
    """Those of format 1.0 are."""
    change(folder)
    old = replace(model, denoisers=[replace(model.denoisers[0], config=None)])
    with pytest.raises((WeightsMismatch, WeightsMissing)):
        accepted(folder, old)
