"""`kill -9` of every command that writes: at fifty random moments, and at those that a moment seldom hits.

These are the evaluation, and every access to a file while the result is written. After each kill, what has its final
name is whole. Nothing that was measured is lost or measured again. And when a command is left alone at last, it makes
what it makes undisturbed in another folder.
"""

import shutil

import killing
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

from budc.compiler.compile import compile_artifacts  # noqa: E402
from budc.compiler.models.binding import model_binding  # noqa: E402
from budc.compiler.models.model import load_model  # noqa: E402
from budc.compiler.request import CompileRequest  # noqa: E402
from budc.policies import profile as profiles  # noqa: E402
from budc.policies.profile import load_profile  # noqa: E402
from budc.runtimes.exported.folder import describe_export  # noqa: E402
from budc.runtimes.exported.manifest import MANIFEST  # noqa: E402
from budc.schema.artifact import open_artifact, read, seal  # noqa: E402
from budc.schema.attestation import read_evaluation  # noqa: E402
from budc.schema.digests import find_variant  # noqa: E402
from budc.schema.policy import Shape  # noqa: E402

KILLS = 50
pytestmark = pytest.mark.slow


@pytest.fixture(
    params=[pytest.param("random moments", marks=pytest.mark.endless), "evaluation and final write"]
)
def survives(tmp_path, request):
    """Kill a command again and again: `survives(arguments, name, whole, script)`.

    `arguments(folder)` calls the command so that it makes `folder / name`; `whole(path)` returns what that is, and
    raises where it is not whole. `keeps_journal` says that measurements stay when the command has ended.
    """

    def check_command(arguments, name, whole, script=killing.COMMAND, keeps_journal=False, **given):
        undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
        for folder in (undisturbed, killed):
            folder.mkdir()

        def attempt(folder, seconds=None, end=None):
            command = [str(argument) for argument in arguments(folder)]
            watched = str((folder / name).parent)
            return killing.run(
                script,
                tmp_path / "log",
                seconds=seconds,
                end=end,
                watched=watched,
                arguments=command,
                **given,
            )

        def remove(path):
            # A journal that is kept would leave nothing to measure.
            for made in (path, *(path.parent.glob(".measured.*") if keeps_journal else ())):
                shutil.rmtree(made) if made.is_dir() else made.unlink()

        attempt(undisturbed)
        expected = whole(undisturbed / name)
        remove(undisturbed / name)
        needed, seconds, _, passed = attempt(undisturbed)
        assert whole(undisturbed / name) == expected
        journalled = []

        def check(ended):
            nonlocal journalled
            reported, journalled = journalled + ended.measured, killing.journalled((killed / name).parent)
            if (killed / name).exists():
                assert whole(killed / name) == expected
                assert ended.killed or reported == needed, "something was lost, or measured twice"
                remove(killed / name)
                if keeps_journal:
                    journalled = []
            else:
                assert ended.killed
                assert journalled[: len(reported)] == reported
                assert journalled == needed[: len(journalled)]

        if request.param == "random moments":
            moments = killing.at_random_moments(
                lambda at: attempt(killed, at), check, KILLS, seconds, bool(needed)
            )
        else:

            def at_point(point):
                # Ended before, so that the points are those of a whole attempt.
                check(attempt(killed))
                return attempt(killed, end=point)

            moments = killing.at_the_end(at_point, check, passed)
        check(attempt(killed))
        check(attempt(killed))
        # No folder is left, and no file but what a kill leaves of one that was being written.
        left = [path for path in (killed / name).parent.iterdir() if path.suffix != ".tmp"]
        assert left == []
        print(f"{name}: {seconds:.2f} s undisturbed, {len(moments)} kills at {moments}")

    return check_command


SMALLER = """
import msgspec
from budc.policies import model_choice
choose = model_choice.choose_model
model_choice.choose_model = lambda model: msgspec.structs.replace(choose(model), height=32, width=32, frames=1)
"""
CONVERTED = """
import os
import onnx_ir as ir
from budc.compiler.export import graph_files
convert = graph_files.to_graph
def to_graph(source):
    path = os.path.join(converted, f"{source.name}.onnx")
    if not os.path.exists(path):
        ir.save(convert(source), path)
    return ir.load(path)
graph_files.to_graph = to_graph
"""
"""Converts each graph once. A conversion takes most of an export's time and writes nothing, so there a kill has nothing
to damage."""


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The untrained pipeline with one layer where it has several: most of an export is paid by the layer."""
    from budc.policies.nano.architectures import wan as components
    from budc.policies.nano.text.tokenizer import build_tokenizer

    tokenizer = build_tokenizer()
    transformer = components.build_transformer("wan2.1-nano", seed=0)
    encoder = components.build_text_encoder(tokenizer, seed=0)
    encoder.config.num_layers = 1
    folder = tmp_path_factory.mktemp("models") / "small"
    components.save_pipeline(
        folder,
        type(transformer).from_config({**transformer.config, "num_layers": 1}),
        components.build_vae(seed=0),
        type(encoder)(encoder.config),
        tokenizer,
    )
    return folder


@pytest.fixture
def policy(small, make_document, signer, tmp_path):
    """A policy for that pipeline at the smaller shape, as a file."""
    profile = load_profile("wan2.1-nano")
    document = make_document(
        steps=4,
        nfe=2,
        model=model_binding(profile, small),
        sampler=load_model(profile, small, torch.device("cpu")).sampler(4),
        shape=Shape(height=32, width=32, frames=1, dtype="float32", text_tokens=profile.text_tokens),
    )
    path = tmp_path / "policy.budc.json"
    path.write_bytes(seal(document, signer))
    return path


EXPORT = ("export", "onnx", "--model", "wan2.1-nano")


@pytest.fixture(scope="module")
def exported(small, tmp_path_factory):
    """An export of that pipeline, and the folder of its graphs as they were converted."""
    folder = tmp_path_factory.mktemp("exported")
    converted = folder / "converted"
    converted.mkdir()
    arguments = [*EXPORT, "--weights", str(small), "--out", str(folder / "onnx")]
    killing.run(
        SMALLER + CONVERTED + killing.COMMAND, folder / "log", arguments=arguments, converted=str(converted)
    )
    return folder / "onnx", str(converted)


def test_export(survives, small, exported):
    def whole(folder):
        describe_export(folder)
        return (folder / MANIFEST).read_bytes()

    script = SMALLER + CONVERTED + killing.COMMAND
    survives(
        lambda folder: (*EXPORT, "--weights", small, "--out", folder / "out"),
        "out",
        whole,
        script,
        converted=exported[1],
    )


def test_bind(survives, policy, small, exported, trust, key_pair, tmp_path):
    (tmp_path / "release.key").write_bytes(key_pair.private)
    bind = ("bind", policy, "--variant", exported[0], "--key", tmp_path / "release.key")
    survives(
        lambda folder: (*bind, "--weights", small, "--samples", 1, "--out", folder / "out.budc.json"),
        "out.budc.json",
        # ECDSA signs the same payload differently each time.
        lambda path: open_artifact(path, trust).payload,
        SMALLER + killing.COMMAND,
    )


def test_attach(survives, policy, small, trust):
    def attach(folder):
        if not (folder / "model").exists():
            shutil.copytree(small, folder / "model")
        return ("attach", policy, folder / "model")

    def whole(path):
        variants = open_artifact(path, trust).document.model.variants
        assert find_variant(path.parents[1], variants).name == "original"
        return path.read_bytes()

    survives(attach, f"model/budc/{read(policy).document.name}.budc.json", whole)


SHELF = """
from pathlib import Path
from budc.policies import profile
profile._HERE = Path(shelf)
"""


def test_compile(survives, flux_profile, flux_folder):
    compile_ = (
        "compile",
        "--model",
        flux_profile,
        "--weights",
        flux_folder,
        "--budget",
        3,
        "--search",
        "uniform",
    )
    survives(
        lambda folder: (*compile_, "--out", folder / "out.budc.json"),
        "out.budc.json",
        lambda path: read(path).payload,
        SHELF + killing.COMMAND,
        shelf=str(profiles._HERE),
    )


def test_transfer(survives, flux_profile, flux_folder, tmp_path):
    source = tmp_path / "source.budc.json"
    request = CompileRequest(
        model=flux_profile, budget="3", weights=flux_folder, search="uniform", out=source
    )
    compile_artifacts(request.resolve())
    transfer = ("transfer", source, "--to", flux_profile, "--weights", flux_folder, "--allow-unsigned")
    survives(
        lambda folder: (*transfer, "--out", folder / "out.budc.json"),
        "out.budc.json",
        lambda path: read(path).payload,
        SHELF + killing.COMMAND,
        shelf=str(profiles._HERE),
    )


def test_evaluate(survives, flux_profile, flux_folder, tmp_path):
    source = tmp_path / "source.budc.json"
    request = CompileRequest(
        model=flux_profile, budget="3", weights=flux_folder, search="uniform", out=source
    )
    compile_artifacts(request.resolve())
    evaluate = ("evaluate", source, "--weights", flux_folder, "--allow-unsigned", "--metrics", "psnr")
    rivals = ("--against", "uniform,magcache", "--repeats", 0)
    survives(
        lambda folder: (*evaluate, *rivals, "--out", folder / "out"),
        f"out/{read(source).document.name}.evaluation.json",
        lambda path: read_evaluation(path).payload,
        SHELF + killing.COMMAND,
        keeps_journal=True,
        shelf=str(profiles._HERE),
    )
