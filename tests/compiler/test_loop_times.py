"""What the loops of the full run and of a policy took, measured as the held-out prompts are rolled out."""

from types import SimpleNamespace

import pytest

pytest.importorskip("torch")

from budc.cli.output.compiled import page, record
from budc.compiler.compile import compile_measured
from budc.compiler.evaluation import reference
from budc.compiler.evaluation.pipeline_rollout import PipelineRollout
from budc.compiler.policy_source import make_request
from budc.compiler.rollouts.policies import forwards_per_sample
from budc.compiler.storage import tensors


@pytest.fixture
def compiled(eight_prompts, tmp_path, monkeypatch):
    """Compile with held-out prompts in chunks of two, on a clock of forwards.

    What runs first takes 100 more, and a single sample twice as long.
    """
    clock, begun, roll = [0.0], [], PipelineRollout._roll

    def rolled(rollout, policy, sampler, conditions):
        clock[0] += forwards_per_sample(policy) * 2 + (100 if policy not in begun else 0)
        begun.append(policy)
        return roll(rollout, policy, sampler, conditions)

    monkeypatch.setattr(tensors, "CHUNK_SIZE", 2)
    monkeypatch.setattr(PipelineRollout, "_roll", rolled)
    monkeypatch.setattr(reference, "time", SimpleNamespace(perf_counter=lambda: clock[0]))

    def compile_with(prompts):
        held_out = tmp_path / "held-out.txt"
        held_out.write_text("".join(f"a dot {prompt}\n" for prompt in range(prompts)))
        flags = {"budget": "3", "search": "uniform", "no_frames": True, "held_out": held_out}
        request = make_request({}, eight_prompts | flags | {"out": tmp_path / "p.budc.json"})
        (one,) = compile_measured(request.resolve())
        return one

    return compile_with


def test_a_compile_says_how_much_less_the_loop_took(compiled):
    artifact, loop, _ = compiled(prompts=5)
    assert loop is not None
    assert (loop.full, loop.policy) == (12, 6)
    sentence = page(artifact, loop).splitlines()[0]
    assert loop.device.endswith(", in batches of 2")
    assert f"; the loop took 2 times less on {loop.device}" in sentence
    assert record(artifact, loop)["verdict"] == sentence
    assert record(artifact, loop)["loop"]["policy"] == 6
    assert b"seconds" not in artifact.payload


def test_nothing_is_said_of_it_where_one_whole_chunk_is_the_first(compiled):
    artifact, loop, _ = compiled(prompts=3)
    assert loop is None
    assert "the loop" not in page(artifact, loop)
