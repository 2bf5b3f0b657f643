"""Policies of format 1.1 on pipelines of diffusers."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from format_additions import ADDED, with_negative
from msgspec.structs import replace

torch = pytest.importorskip("torch")

from budc.runtimes.admission.additions import APPLY, RUNS  # noqa: E402
from budc.runtimes.admission.settings import UncalibratedWarning  # noqa: E402
from budc.runtimes.diffusers.apply import AppliedPolicy, apply  # noqa: E402
from budc.schema.additions import IMAGES  # noqa: E402
from budc.schema.artifact import seal  # noqa: E402
from budc.schema.errors import CalibrationMismatch, UnsupportedModel, UnsupportedVersion  # noqa: E402
from budc.schema.policy import FurtherShape, NegativePrompt, PolicyDocument  # noqa: E402

Run = Callable[..., Any]
CompiledFor = Callable[..., PolicyDocument]
AppliedQuietly = Callable[..., contextlib.AbstractContextManager[AppliedPolicy]]
RUN = RUNS[APPLY] - {IMAGES}
"""What a pipeline runs that starts from no image."""


def complete(document: PolicyDocument, make_document: Any) -> PolicyDocument:
    """Return the document with a report that has figures."""
    return replace(document, quality=make_document().quality)


@pytest.mark.parametrize("name", [name for name, (_, added) in ADDED.items() if not set(added) <= RUN])
@pytest.mark.parametrize("uncalibrated", [False, True])
def test_what_cannot_be_run_is_refused_even_uncalibrated(
    wan: Any, compiled_for: CompiledFor, make_document: Any, tmp_path: Path, name: str, uncalibrated: bool
) -> None:
    change, added = ADDED[name]
    path = tmp_path / "x.budc.json"
    path.write_bytes(seal(change(complete(compiled_for(wan), make_document)), None))
    missing = next(item for item in added if item not in RUN).replace(".", r"\.")
    with (
        pytest.warns(UserWarning, match="is not signed"),
        pytest.raises((UnsupportedVersion, UnsupportedModel), match=missing),
    ):
        apply(wan, path, allow_unsigned=True, allow_uncalibrated=uncalibrated)
    assert "_budc" not in vars(wan.transformer)


# Shapes ---------------------------------------------------------------------------------------------------


def larger(document: PolicyDocument, **fields: Any) -> PolicyDocument:
    """Return the document with a further shape of 16 pixels more a side."""
    shape = document.shape
    assert shape is not None
    size = {"height": shape.height + 16, "width": shape.width + 16, "frames": shape.frames}
    return replace(document, further_shapes=[FurtherShape(**size | fields, quality=document.quality)])


def test_every_listed_shape_runs_as_if_it_were_the_only_one(
    pipe: Any, run: Run, compiled_for: CompiledFor, make_document: Any, applied_quietly: AppliedQuietly
) -> None:
    document = complete(compiled_for(pipe), make_document)
    shape = document.shape
    assert shape is not None
    size = {"height": shape.height + 16, "width": shape.width + 16}
    with applied_quietly(pipe, replace(document, shape=replace(shape, **size))):
        alone = run(pipe, **size)
    with applied_quietly(pipe, document):
        first = run(pipe)
    with applied_quietly(pipe, larger(document)) as applied:
        assert torch.equal(run(pipe, **size), alone)
        assert torch.equal(run(pipe), first)
        assert applied.uncalibrated == ()


def test_sigmas_of_a_size_that_is_shown_too_late_are_refused(
    wan: Any, run: Run, compiled_for: CompiledFor, make_document: Any, applied_quietly: AppliedQuietly
) -> None:
    document = complete(compiled_for(wan), make_document)
    sigmas = [0.5 * sigma for sigma in document.sampler.sigmas]
    document = larger(document, sigmas=sigmas, timesteps=document.sampler.timesteps)
    with applied_quietly(wan, document):
        # As in a loop of the user's own: the schedule first, then the latents.
        wan.scheduler.set_timesteps(document.sampler.steps)
        assert wan.scheduler.sigmas[0] == document.sampler.sigmas[0]
        with pytest.raises(
            CalibrationMismatch, match="size: the policy has sigmas or predictors of its own for 48 x 32"
        ):
            wan.prepare_latents(1, 16, 32, 48, 5, torch.float32, "cpu", torch.Generator())
        wan.scheduler.set_timesteps(document.sampler.steps)
        assert wan.scheduler.sigmas[0] == sigmas[0]


def test_a_shape_that_is_not_listed_is_refused(
    pipe: Any, run: Run, compiled_for: CompiledFor, make_document: Any, applied_quietly: AppliedQuietly
) -> None:
    document = larger(complete(compiled_for(pipe), make_document))
    assert document.shape is not None
    with applied_quietly(pipe, document):
        with pytest.raises(CalibrationMismatch, match=f"height: .*{document.shape.height}"):
            # One side of each: no listed shape has both.
            run(pipe, height=document.shape.height + 16)
        run(pipe)


# Negative prompts -----------------------------------------------------------------------------------------


def test_the_negative_prompt_of_the_calibration_runs(
    wan: Any, run: Run, compiled_for: CompiledFor, applied_quietly: AppliedQuietly
) -> None:
    document = with_negative(compiled_for(wan), "a red")
    with applied_quietly(wan, document) as applied:
        run(wan, prompt="red", negative_prompt="a red")
        run(wan, batch=2, negative_prompt=["a red", "a red"])
        assert applied.uncalibrated == ()


@pytest.mark.parametrize("given", ["red", "", None, ["red"]])
def test_another_negative_prompt_is_refused(
    wan: Any, run: Run, compiled_for: CompiledFor, applied_quietly: AppliedQuietly, given: Any
) -> None:
    prompt = ["a red a"] if isinstance(given, list) else "a red a"
    with (
        applied_quietly(wan, with_negative(compiled_for(wan), "a red")),
        pytest.raises(CalibrationMismatch, match="negative prompt: the policy was calibrated for 'a red'"),
    ):
        run(wan, prompt=prompt, negative_prompt=given)
    with applied_quietly(wan, with_negative(compiled_for(wan), "a red"), allow_uncalibrated=True) as applied:
        with pytest.warns(UncalibratedWarning, match="negative prompt"):
            run(wan, prompt=prompt, negative_prompt=given)
        assert "negative prompt: " in applied.uncalibrated[0]


def test_no_negative_prompt_is_the_empty_one(
    wan: Any, run: Run, compiled_for: CompiledFor, applied_quietly: AppliedQuietly
) -> None:
    with applied_quietly(wan, with_negative(compiled_for(wan), "")):
        assert torch.equal(
            run(wan, prompt="red", negative_prompt=None), run(wan, prompt="red", negative_prompt="")
        )


def test_embeddings_of_a_negative_prompt_cannot_be_checked(
    wan: Any, run: Run, compiled_for: CompiledFor, applied_quietly: AppliedQuietly
) -> None:
    embeddings = wan.encode_prompt("red", "a red", max_sequence_length=8)[1]
    options = {"prompt": "red", "negative_prompt": None, "negative_prompt_embeds": embeddings}
    with (
        applied_quietly(wan, with_negative(compiled_for(wan), "a red")),
        pytest.raises(CalibrationMismatch, match="negative prompt: cannot be read off its embeddings"),
    ):
        run(wan, **options)
    varied = compiled_for(wan)
    negative = NegativePrompt(rule="varied")
    varied = replace(varied, sampler=replace(varied.sampler, negative_prompt=negative))
    with applied_quietly(wan, varied):
        run(wan, **options)
        run(wan, prompt="red", negative_prompt="anything")


def test_a_negative_prompt_that_only_the_call_is_told_is_checked(
    wan: Any,
    run: Run,
    compiled_for: CompiledFor,
    applied_quietly: AppliedQuietly,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encode = type(wan).encode_prompt

    def encode_prompt(self: Any, **arguments: Any) -> Any:
        """As Qwen-Image's, which encodes the negative prompt as any other."""
        return encode(self, **arguments)

    monkeypatch.setattr(type(wan), "encode_prompt", encode_prompt)
    with applied_quietly(wan, with_negative(compiled_for(wan), "a red")) as applied:
        run(wan, prompt="red", negative_prompt="a red")
        assert applied.uncalibrated == ()
        for negative in ("red", "", None):
            with pytest.raises(
                CalibrationMismatch, match="negative prompt: the policy was calibrated for 'a red'"
            ):
                run(wan, prompt="red", negative_prompt=negative)
        embeddings = torch.zeros(1, 8, 16)
        with pytest.raises(CalibrationMismatch, match="negative prompt: cannot be read off its embeddings"):
            run(wan, prompt="red", negative_prompt=None, negative_prompt_embeds=embeddings)


def test_prompt_embeddings_without_a_negative_text_are_those_of_an_empty_one(
    wan: Any, run: Run, compiled_for: CompiledFor, applied_quietly: AppliedQuietly
) -> None:
    embeddings = wan.encode_prompt("red", "", max_sequence_length=8)[0]
    options = {"prompt": None, "prompt_embeds": embeddings, "negative_prompt": None}
    with applied_quietly(wan, with_negative(compiled_for(wan), "")):
        run(wan, **options)
    with (
        applied_quietly(wan, with_negative(compiled_for(wan), "a red")),
        pytest.raises(CalibrationMismatch, match=r"calibrated for 'a red', this run has ''"),
    ):
        run(wan, **options)


def test_a_pipeline_that_is_not_told_its_negative_prompt_is_refused(
    wan: Any, compiled_for: CompiledFor, applied_quietly: AppliedQuietly, monkeypatch: pytest.MonkeyPatch
) -> None:
    def encode_prompt(self: Any, prompt: str) -> None: ...

    def call(self: Any, **inputs: Any) -> None: ...

    document = with_negative(compiled_for(wan))
    monkeypatch.setattr(type(wan), "encode_prompt", encode_prompt)
    monkeypatch.setattr(type(wan), "__call__", call)
    with (
        pytest.raises(UnsupportedVersion, match=r"a negative prompt that must be checked \(sampler"),
        applied_quietly(wan, document),
    ):
        pass
