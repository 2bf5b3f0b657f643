"""The folder as ComfyUI loads it from `custom_nodes`, and its nodes beside a stand-in of the engine's `folder_paths`."""

import importlib.util
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

import budc.runtimes.comfyui
from budc.runtimes.admission.trust import UnsignedWarning
from budc.runtimes.comfyui import nodes
from budc.runtimes.comfyui.refusals import shown
from budc.schema.artifact import seal
from budc.schema.errors import Unsigned, UntrustedKey
from budc.schema.policy import PolicyDocument

PACK = Path(budc.runtimes.comfyui.__file__).parent


def loaded_as_custom_node(folder: Path) -> Any:
    name = str(folder).replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, folder / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_folder_loads_as_a_custom_node(tmp_path: Path) -> None:
    (tmp_path / "budc").symlink_to(PACK, target_is_directory=True)
    pack = loaded_as_custom_node(tmp_path / "budc")
    assert pack.NODE_CLASS_MAPPINGS.keys() == pack.NODE_DISPLAY_NAME_MAPPINGS.keys()
    for node in pack.NODE_CLASS_MAPPINGS.values():
        assert callable(getattr(node, node.FUNCTION))
        assert len(node.RETURN_TYPES) == len(node.RETURN_NAMES)
        assert node.DESCRIPTION
    assert (PACK / "README.md").is_file()


def test_loading_the_pack_imports_no_torch() -> None:
    # ComfyUI imports all packs when it starts, and shows the inputs of their nodes.
    code = "import sys, budc.runtimes.comfyui as pack; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder `models/budc`, seen through a stand-in of the engine's module `folder_paths`."""
    stand_in: Any = types.ModuleType("folder_paths")
    stand_in.models_dir = str(tmp_path)
    stand_in.folder_names_and_paths = {}
    folder = tmp_path / "budc"
    folder.mkdir()

    def get_filename_list(name: str) -> list[str]:
        (root,), suffixes = stand_in.folder_names_and_paths[name]
        return [path.name for path in Path(root).iterdir() if path.suffix in suffixes]

    def get_full_path_or_raise(name: str, file: str) -> str:
        (root,), _ = stand_in.folder_names_and_paths[name]
        return str(Path(root) / file)

    stand_in.get_filename_list = get_filename_list
    stand_in.get_full_path_or_raise = get_full_path_or_raise
    monkeypatch.setitem(sys.modules, "folder_paths", stand_in)
    return folder


@pytest.fixture
def document(make_document: Any) -> PolicyDocument:
    return make_document()


@pytest.fixture
def signed(models: Path, document: PolicyDocument, signer: Any, key_pair: Any) -> str:
    (models / "policy.budc.json").write_bytes(seal(document, signer))
    (models / "release.pub").write_bytes(key_pair.public)
    (models / "policy.evaluation.json").write_text("{}")
    return "policy.budc.json"


def test_the_loader_lists_policies_and_whom_to_trust(signed: str) -> None:
    inputs = nodes.LoadPolicy.INPUT_TYPES()["required"]
    assert inputs["policy"] == ([signed],)
    assert inputs["trust"] == (["release.pub", "nobody"],)


def test_a_signed_policy_is_loaded(signed: str, document: PolicyDocument) -> None:
    (policy,) = nodes.LoadPolicy().load(signed, "release.pub", False)
    assert policy.document == document
    assert policy.signers


def test_a_trust_file_is_taken_too(signed: str, models: Path, document: PolicyDocument) -> None:
    (models / "trust.toml").write_text('keys = ["release.pub"]\n')
    (policy,) = nodes.LoadPolicy().load(signed, "trust.toml", False)
    assert policy.document == document


def test_nobody_trusted_is_refused_in_the_words_of_the_node(signed: str) -> None:
    with pytest.raises(UntrustedKey, match="put its publisher's public key into models/budc, and choose it"):
        nodes.LoadPolicy().load(signed, nodes.NOBODY, False)


def test_an_unsigned_policy_is_refused_unless_allowed(models: Path, document: PolicyDocument) -> None:
    (models / "policy.budc.json").write_bytes(seal(document, None))
    with pytest.raises(Unsigned, match="turn on allow_unsigned"):
        nodes.LoadPolicy().load("policy.budc.json", nodes.NOBODY, False)
    with pytest.warns(UnsignedWarning, match="nobody vouches"):
        (policy,) = nodes.LoadPolicy().load("policy.budc.json", nodes.NOBODY, True)
    assert policy.signers == ()


def test_a_remedy_is_said_once() -> None:
    with pytest.raises(Unsigned) as caught, shown(), shown():
        raise Unsigned("a is unsigned", remedy="sign it")
    assert str(caught.value) == "a is unsigned; sign it"


def test_an_edited_file_is_loaded_anew(signed: str, models: Path) -> None:
    import os

    before = nodes.LoadPolicy.IS_CHANGED(signed, "release.pub", False)
    assert nodes.LoadPolicy.IS_CHANGED(signed, "release.pub", False) == before
    os.utime(models / signed, ns=(1, 1))
    assert nodes.LoadPolicy.IS_CHANGED(signed, "release.pub", False) != before
