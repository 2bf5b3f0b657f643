"""Attacks on who runs when: several denoisers that do not share a run as they say."""

from __future__ import annotations

from typing import Any

from attack_corpus.forge import Add, payload_of, policy, shared, signed


def experts(add: Add) -> None:
    """Experts that are not there, take over at no step, or reuse what another one computed."""

    def refused(name: str, error: str, why: str, *takeovers: Any, denoisers: int | None = None) -> None:
        add(f"experts-{name}", policy(shared(*takeovers, denoisers=denoisers)), error, why)

    schema, semantics = "SchemaViolation", "SemanticsViolation"
    refused("missing", semantics, "a second denoiser that nothing says when to run", denoisers=2)
    refused(
        "of-one-denoiser", semantics, "an expert that is no denoiser", ("transformer_2", 2, 3), denoisers=1
    )
    refused(
        "one-too-few", semantics, "a third denoiser that never runs", ("transformer_2", 2, 3), denoisers=3
    )
    refused("unknown", semantics, "an expert that is no denoiser", ("other", 2, 3))
    refused("first-again", semantics, "the first denoiser, taking over from itself", ("transformer", 2, 3))
    refused(
        "in-another-order",
        semantics,
        "experts in another order than the denoisers",
        ("transformer_3", 2, 3),
        ("transformer_2", 4, 3),
    )
    refused(
        "at-once",
        semantics,
        "two that take over at one step",
        ("transformer_2", 2, 3),
        ("transformer_3", 2, 3),
    )
    refused(
        "backwards", semantics, "one that takes over before", ("transformer_2", 4, 3), ("transformer_3", 2, 3)
    )
    refused("after-the-end", semantics, "one that takes over after the last step", ("transformer_2", 6, 3))
    refused("begins-with-reuse", semantics, "another denoiser's residual", ("transformer_2", 3, 3))
    refused("at-the-beginning", schema, "one that takes over before anything ran", ("transformer_2", 0, 3))
    refused("at-no-step", schema, "a step that no schedule has", ("transformer_2", 1000, 3))
    refused("at-half-a-step", schema, "half a step", ("transformer_2", 2.5, 3))
    refused("guidance-text", schema, "guidance in words", ("transformer_2", 2, "3"))
    refused("guidance-out-of-bounds", schema, "guidance that explodes", ("transformer_2", 2, 1e9))
    refused(
        "too-many",
        schema,
        "more experts than any model has",
        *((f"transformer_{index}", index, 3) for index in range(2, 10)),
        denoisers=8,
    )
    two = shared(("transformer_2", 4, 3))
    two["predicate"]["policy"]["branches"][0]["predictor"][5] = [2, -1]
    add("experts-reach-back", policy(two), semantics, "a prediction from another denoiser's residuals")
    two = shared(("transformer_2", 4, 3))
    two["predicate"]["sampler"]["experts"][0]["boundary"] = 0.875
    add("experts-unknown-field", policy(two), schema, "a field that is not known")
    two = shared(("transformer_2", 4, 3))
    del two["predicate"]["sampler"]["experts"][0]["guidance"]
    add("experts-no-guidance", policy(two), schema, "an expert without its guidance")
    for name, spelled in (("null", b"null"), ("empty", b"[]")):
        payload = payload_of(shared()).replace(b'"guidance":5', b'"experts":' + spelled + b',"guidance":5')
        add(f"experts-{name}", signed(payload), schema, "no experts, spelled out")
