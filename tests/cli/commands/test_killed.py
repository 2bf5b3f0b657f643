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


class KilledCommand:
    """A command that is killed again and again.

    `arguments(folder)` calls it so that it makes `folder / name`; `whole(path)` returns what that is, and raises where
    it is not whole. `keeps_journal` says that measurements stay when the command has ended; `given` goes to the script.
    """

    def __init__(self, folder, arguments, name, whole, script=killing.COMMAND, keeps_journal=False, **given):
        self.arguments, self.name, self.whole, self.script = arguments, name, whole, script
        self.keeps_journal, self.given, self.log = keeps_journal, given, folder / "log"
        self.undisturbed, self.killed = folder / "undisturbed", folder / "killed"
        for made in (self.undisturbed, self.killed):
            made.mkdir()
        self.journalled = []
        self.attempt(self.undisturbed)
        self.expected = whole(self.undisturbed / name)
        self.remove(self.undisturbed / name)
        self.needed, self.seconds, _, self.passed = self.attempt(self.undisturbed)
        assert whole(self.undisturbed / name) == self.expected, "two undisturbed runs differ"

    def attempt(self, folder, seconds=None, end=None):
        """Run it in a folder, until so many seconds or a point of its way."""
        return killing.run(
            self.script,
            self.log,
            seconds=seconds,
            end=end,
            watched=str((folder / self.name).parent),
            arguments=[str(argument) for argument in self.arguments(folder)],
            **self.given,
        )

    def remove(self, path):
        """Remove what it made; a journal that is kept would leave nothing to measure."""
        for made in (path, *(path.parent.glob(".measured.*") if self.keeps_journal else ())):
            shutil.rmtree(made) if made.is_dir() else made.unlink()

    def check(self, ended):
        """Check what an attempt left: something whole, or the beginning of what is measured."""
        made = self.killed / self.name
        reported, self.journalled = self.journalled + ended.measured, killing.journalled(made.parent)
        if not made.exists():
            assert ended.killed
            assert self.journalled[: len(reported)] == reported
            assert self.journalled == self.needed[: len(self.journalled)]
            return
        assert self.whole(made) == self.expected
        assert ended.killed or reported == self.needed, "something was lost, or measured twice"
        self.remove(made)
        if self.keeps_journal:
            self.journalled = []

    def kill_at_random_moments(self):
        """Kill it at moments that are spread over an attempt; return them."""
        return killing.at_random_moments(
            lambda at: self.attempt(self.killed, at), self.check, KILLS, self.seconds, bool(self.needed)
        )

    def kill_at_the_end(self):
        """Kill it at the evaluation and at each access to a file of its final write; return these points."""

        def at_point(point):
            # Ended before, so that the points are those of a whole attempt.
            self.check(self.attempt(self.killed))
            return self.attempt(self.killed, end=point)

        return killing.at_the_end(at_point, self.check, self.passed)

    def end(self):
        """Leave it alone at last. No folder is left, and no file but what a kill leaves of one being written."""
        for _ in range(2):
            self.check(self.attempt(self.killed))
        left = [path for path in (self.killed / self.name).parent.iterdir() if path.suffix != ".tmp"]
        assert left == []


@pytest.fixture(
    params=[pytest.param("random moments", marks=pytest.mark.endless), "evaluation and final write"]
)
def survives(tmp_path, request):
    """Kill a command again and again; arguments are those of `KilledCommand` after the folder."""

    def check_command(*arguments, **given):
        command = KilledCommand(tmp_path, *arguments, **given)
        at_random = request.param == "random moments"
        moments = command.kill_at_random_moments() if at_random else command.kill_at_the_end()
        command.end()
        print(f"{command.name}: {command.seconds:.2f} s undisturbed, {len(moments)} kills at {moments}")

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
