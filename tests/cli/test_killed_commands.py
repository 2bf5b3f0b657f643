"""`kill -9` at random moments of every command that writes, fifty times each.

After each kill, what has its final name is whole. Nothing that was measured is lost or measured again. And when a
command is left alone at last, it makes what it makes undisturbed in another folder.
"""

import shutil

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

from budc.compiler.compile import compile_artifacts
from budc.compiler.request import CompileRequest
from budc.policies import profile as profiles
from budc.runtimes.manifest import MANIFEST
from budc.runtimes.onnx_folder import describe_export
from budc.schema.artifact import open_artifact, read, seal
from budc.schema.digests import find_variant

KILLS = 10
pytestmark = pytest.mark.slow


@pytest.fixture
def survives(killing, tmp_path):
    """Kill a command again and again: `survives(arguments, name, whole, script)`.

    `arguments(place)` calls the command so that it makes `place / name`; `whole(path)` returns what that is, and
    raises where it is not whole.
    """

    def check_command(arguments, name, whole, script=killing.COMMAND, **given):
        undisturbed, place = tmp_path / "undisturbed", tmp_path / "killed"
        for folder in (undisturbed, place):
            folder.mkdir()

        def attempt(folder, seconds=None):
            command = [str(argument) for argument in arguments(folder)]
            return killing.run(script, tmp_path / "log", seconds=seconds, arguments=command, **given)

        attempt(undisturbed)
        expected = whole(undisturbed / name)
        remove(undisturbed / name)
        needed, seconds, _ = attempt(undisturbed)
        assert whole(undisturbed / name) == expected
        kept = []

        def check(ended):
            nonlocal kept
            reported, kept = kept + ended.measured, killing.journalled((place / name).parent)
            if (place / name).exists():
                assert whole(place / name) == expected
                assert ended.killed or reported == needed, "something was lost, or measured twice"
                remove(place / name)
            else:
                assert ended.killed
                assert kept[: len(reported)] == reported
                assert kept == needed[: len(kept)]

        moments = killing.at_random_moments(lambda at: attempt(place, at), check, KILLS, seconds)
        check(attempt(place))
        check(attempt(place))
        # No folder is left, and no file but what a kill leaves of one that was being written.
        left = [path for path in (place / name).parent.iterdir() if path.suffix != ".tmp"]
        assert left == []
        print(
            f"{name}: {seconds:.2f} s undisturbed, {len(moments)} kills at {min(moments):.2f} … {max(moments):.2f} s"
        )

    return check_command


def remove(path):
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def test_export(survives, weights):
    def whole(folder):
        describe_export(folder)
        return (folder / MANIFEST).read_bytes()

    export = ("export", "onnx", "--model", "wan2.1-nano", "--weights", weights)
    survives(lambda place: (*export, "--out", place / "out"), "out", whole)


def test_bind(survives, document, signer, trust, weights, exported, key_pair, tmp_path):
    (tmp_path / "release.key").write_bytes(key_pair.private)
    policy = tmp_path / "policy.budc.json"
    policy.write_bytes(seal(document, signer))
    bind = ("bind", policy, "--variant", exported, "--key", tmp_path / "release.key", "--weights", weights)
    survives(
        lambda place: (*bind, "--samples", 1, "--out", place / "out.budc.json"),
        "out.budc.json",
        # ECDSA signs the same payload differently each time.
        lambda path: open_artifact(path, trust).payload,
    )


def test_attach(survives, document, signer, trust, weights, tmp_path):
    policy = tmp_path / "policy.budc.json"
    policy.write_bytes(seal(document, signer))

    def attach(place):
        if not (place / "model").exists():
            shutil.copytree(weights, place / "model")
        return ("attach", policy, place / "model")

    def whole(path):
        variants = open_artifact(path, trust).document.model.variants
        assert find_variant(path.parents[1], variants).name == "original"
        return path.read_bytes()

    survives(attach, f"model/budc/{document.name}.budc.json", whole)


SHELF = """
from pathlib import Path
from budc.policies import profile
profile._HERE = Path(shelf)
"""


def test_transfer(survives, killing, flux_profile, flux_folder, tmp_path):
    source = tmp_path / "source.budc.json"
    request = CompileRequest(
        model=flux_profile, budget="3", weights=flux_folder, search="uniform", out=source
    )
    compile_artifacts(request)
    transfer = ("transfer", source, "--to", flux_profile, "--weights", flux_folder, "--allow-unsigned")
    survives(
        lambda place: (*transfer, "--out", place / "out.budc.json"),
        "out.budc.json",
        lambda path: read(path).payload,
        SHELF + killing.COMMAND,
        shelf=str(profiles._HERE),
    )
