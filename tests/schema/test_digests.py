import hashlib
import json
import struct
from pathlib import Path
from typing import TypeAlias

import pytest

from budc.schema.digests import (
    architecture_digest,
    check_files,
    file_digests,
    find_variant,
    tensor_root,
)
from budc.schema.errors import UnsafeWeights, WeightsMismatch, WeightsMissing
from budc.schema.hashing import sha256_file
from budc.schema.policy import Variant

Tensors: TypeAlias = dict[str, tuple[str, list[int], bytes]]

TENSORS: Tensors = {
    "blocks.0.weight": ("F32", [2, 2], struct.pack("<4f", 1, 2, 3, 4)),
    "blocks.0.bias": ("F32", [2], struct.pack("<2f", 5, 6)),
    "scale": ("F32", [], struct.pack("<f", 7)),
}


def save(path: Path, tensors: Tensors, **metadata: str) -> Path:
    header: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    data = b""
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def number(value: int) -> bytes:
    return struct.pack(">Q", value)


def prefixed(data: bytes) -> bytes:
    return number(len(data)) + data


def test_both_digests_follow_their_definition(tmp_path: Path) -> None:
    path = save(tmp_path / "w.safetensors", TENSORS)
    values, shapes = prefixed(b"budc.tensors.v1"), prefixed(b"budc.architecture.v1")
    for name in sorted(TENSORS):
        dtype, shape, content = TENSORS[name]
        extents = number(len(shape)) + b"".join(map(number, shape))
        shapes += prefixed(name.encode()) + extents
        values += prefixed(name.encode()) + prefixed(dtype.encode()) + extents
        values += prefixed(hashlib.sha256(content).digest())
    assert tensor_root([path]) == "sha256:" + hashlib.sha256(values).hexdigest()
    assert architecture_digest([path]) == "sha256:" + hashlib.sha256(shapes).hexdigest()


def test_the_worked_example_of_the_specification_holds(tmp_path: Path) -> None:
    path = save(tmp_path / "w.safetensors", {"w": ("F32", [2], struct.pack("<2f", 1.0, -2.0))})
    spec = (Path(__file__).parents[2] / "docs" / "spec" / "artifact-v1.md").read_text("utf-8")
    assert tensor_root([path]) in spec
    assert architecture_digest([path]) in spec


def test_resharding_reordering_and_metadata_change_neither_digest(tmp_path: Path) -> None:
    one = save(tmp_path / "one.safetensors", TENSORS)
    first = save(tmp_path / "1.safetensors", {"scale": TENSORS["scale"]}, format="pt")
    rest = {name: TENSORS[name] for name in reversed(TENSORS) if name != "scale"}
    second = save(tmp_path / "2.safetensors", rest)
    assert tensor_root([one]) == tensor_root([first, second]) == tensor_root([second, first])
    assert architecture_digest([one]) == architecture_digest([second, first])


def test_a_cast_changes_the_root_and_keeps_the_architecture(tmp_path: Path) -> None:
    cast: Tensors = {name: ("F16", shape, data[::2]) for name, (_, shape, data) in TENSORS.items()}
    before, after = save(tmp_path / "a", TENSORS), save(tmp_path / "b", cast)
    assert tensor_root([before]) != tensor_root([after])
    assert architecture_digest([before]) == architecture_digest([after])


def test_one_bit_or_another_reading_of_the_same_bytes_changes_the_root(tmp_path: Path) -> None:
    dtype, shape, data = TENSORS["scale"]
    path, roots = tmp_path / "w", {tensor_root([save(tmp_path / "w", TENSORS)])}
    roots.add(tensor_root([save(path, TENSORS | {"scale": (dtype, shape, bytes([data[0] ^ 1]) + data[1:])})]))
    roots.add(tensor_root([save(path, TENSORS | {"scale": ("I32", shape, data)})]))
    roots.add(tensor_root([save(path, TENSORS | {"scale": (dtype, [1], data)})]))
    assert len(roots) == 4


def test_a_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    first, second = save(tmp_path / "a", TENSORS), save(tmp_path / "b", {"scale": TENSORS["scale"]})
    with pytest.raises(UnsafeWeights, match="scale"):
        tensor_root([first, second])


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "transformer").mkdir(parents=True)
    save(folder / "transformer" / "w.safetensors", TENSORS)
    (folder / "transformer" / "config.json").write_text("{}")
    (folder / "README.md").write_text("anything")
    return folder


FILES = ("transformer/w.safetensors", "transformer/config.json")


def bind(folder: Path, name: str = "original") -> Variant:
    return Variant(name=name, files=file_digests(folder, FILES))


def test_file_digests_are_sorted_hex(model: Path) -> None:
    digests = file_digests(model, FILES)
    assert list(digests) == sorted(FILES)
    assert digests["transformer/config.json"] == hashlib.sha256(b"{}").hexdigest()
    assert sha256_file(model / "transformer" / "config.json") == hashlib.sha256(b"{}").hexdigest()


def test_a_bound_folder_passes(model: Path) -> None:
    check_files(model, bind(model))


def test_changed_swapped_and_missing_files_are_refused_by_name(model: Path) -> None:
    variant = bind(model)
    weights, config = model / FILES[0], model / FILES[1]
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(WeightsMismatch, match=r"transformer/w\.safetensors"):
        check_files(model, variant)
    weights.write_bytes(content)
    config.unlink()
    with pytest.raises(WeightsMissing, match=r"transformer/config\.json"):
        check_files(model, variant)


def test_a_rival_beside_listed_weights_is_refused(model: Path) -> None:
    variant = bind(model)
    for name in ("w.safetensors.index.json", "pytorch_model.bin", "w-00001-of-00002.safetensors"):
        rival = model / "transformer" / name
        rival.write_bytes(b"")
        with pytest.raises(UnsafeWeights, match="not listed"):
            check_files(model, variant)
        rival.unlink()
    (model / "transformer" / "notes.txt").write_text("harmless")
    check_files(model, variant)


@pytest.mark.parametrize(
    "path", ["../model/a.json", "/etc/passwd.json", "a\\b.json", "a\n.json", "./a.json", "a//b.json", ""]
)
def test_paths_that_are_not_plain_are_refused(model: Path, path: str) -> None:
    with pytest.raises(UnsafeWeights):
        check_files(model, Variant(name="bad", files={path: "0" * 64}))


def test_a_pickle_is_not_even_hashed(model: Path) -> None:
    (model / "a.pt").write_bytes(b"")
    with pytest.raises(UnsafeWeights, match=r"a\.pt"):
        file_digests(model, ["a.pt"])


def test_links_inside_the_folder_pass_and_links_out_of_it_are_refused(model: Path, tmp_path: Path) -> None:
    variant = bind(model)
    config = model / FILES[1]
    config.rename(model / "real.json")
    config.symlink_to("../real.json")
    check_files(model, variant)
    config.unlink()
    (tmp_path / "outside.json").write_text("{}")
    config.symlink_to(tmp_path / "outside.json")
    with pytest.raises(UnsafeWeights, match="out of the model folder"):
        check_files(model, variant)
    config.unlink()
    config.symlink_to("config.json")
    with pytest.raises(WeightsMissing):
        check_files(model, variant)


def test_a_linked_subfolder_that_leads_out_is_refused(model: Path, tmp_path: Path) -> None:
    variant = bind(model)
    (model / "transformer").rename(tmp_path / "elsewhere")
    (model / "transformer").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnsafeWeights, match="out of the model folder"):
        check_files(model, variant)


def test_a_folder_in_place_of_a_file_is_refused(model: Path) -> None:
    variant = bind(model)
    (model / FILES[1]).unlink()
    (model / FILES[1]).mkdir()
    with pytest.raises(UnsafeWeights, match="not a regular file"):
        check_files(model, variant)


def hub_snapshot(model: Path, tmp_path: Path) -> Path:
    """The same model as the hub's cache lays it out: links into `blobs`."""
    repository = tmp_path / "models--someone--wan"
    snapshot = repository / "snapshots" / "0123abcd"
    (snapshot / "transformer").mkdir(parents=True)
    (repository / "blobs").mkdir()
    for index, name in enumerate(FILES):
        (repository / "blobs" / str(index)).write_bytes((model / name).read_bytes())
        (snapshot / name).symlink_to(f"../../../blobs/{index}")
    return snapshot


def test_a_snapshot_of_the_hub_cache_passes(model: Path, tmp_path: Path) -> None:
    check_files(hub_snapshot(model, tmp_path), bind(model))


def test_links_into_blobs_from_anything_but_a_snapshot_are_refused(model: Path, tmp_path: Path) -> None:
    snapshot = hub_snapshot(model, tmp_path)
    snapshot.parent.rename(snapshot.parent.with_name("revisions"))
    with pytest.raises(UnsafeWeights, match="out of the model folder"):
        check_files(snapshot.parents[1] / "revisions" / snapshot.name, bind(model))


def test_a_link_from_a_snapshot_to_elsewhere_is_refused(model: Path, tmp_path: Path) -> None:
    snapshot = hub_snapshot(model, tmp_path)
    (snapshot / FILES[1]).unlink()
    (snapshot.parents[1] / "refs").write_text("{}")
    (snapshot / FILES[1]).symlink_to("../../../refs")
    with pytest.raises(UnsafeWeights, match="out of the model folder"):
        check_files(snapshot, bind(model))


def test_find_variant_returns_the_one_that_matches(model: Path) -> None:
    good = bind(model, "resharded")
    other = Variant(name="original", files={"transformer/w-1.safetensors": "0" * 64})
    assert find_variant(model, [other, good]).name == "resharded"


def test_find_variant_reports_the_file_that_differs_before_those_that_are_missing(model: Path) -> None:
    missing = Variant(name="original", files={"transformer/w-1.safetensors": "0" * 64})
    different = Variant(name="fp8", files=dict.fromkeys(FILES, "0" * 64))
    with pytest.raises(WeightsMismatch, match="fp8"):
        find_variant(model, [missing, different])
    with pytest.raises(WeightsMissing):
        find_variant(model, [missing])
